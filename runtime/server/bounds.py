"""What gRPC itself is told to bound: connections, streams, headers, silence. Why is beside each."""

from __future__ import annotations

from typing import Any

from trocar.runtime.config import ServerConfig

# Calls in all, those that wait for a thread among them; the next is RESOURCE_EXHAUSTED at once. They would
# wait in a queue without end. Watchers of health count too.
MAX_CALLS = 2000
# Of one connection. HTTP/2 advises no fewer; a client with more waits, and does not fail.
MAX_STREAMS = 100
# A connection has to be ready by then: TCP, TLS and HTTP/2's first frames. gRPC would wait two minutes.
HANDSHAKE_MS = 10_000
# A connection with no call for so long is closed; clients connect again by themselves with the next call.
IDLE_MS = 5 * 60_000
# A silent peer is asked whether it is there, and given up without an answer; gRPC would ask after two hours.
KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS = 60_000, 20_000
# Of a call's headers: ours are a token and a few names.
MAX_HEADER_BYTES = 16 << 10
# Until a client has agreed to that limit, HTTP/2's own holds, which gRPC takes to be 16 MB; and it would wait
# for the client's word for 40 s.
SETTINGS_MS = 5_000
# What a call may send unasked, and in one piece.
LOOKAHEAD_BYTES, MAX_FRAME_BYTES = 5 << 19, 1 << 20
# What a connection's buffer for the next bytes grows to; gRPC would let it double to what a client ever sent.
READ_BYTES = 1 << 18


def channel_options(config: ServerConfig) -> tuple[tuple[str, Any], ...]:
    """Return the options of `grpc.server`."""
    return (
        # Holds for a compressed message too, when it is unpacked.
        ("grpc.max_receive_message_length", config.max_message_mib << 20),
        ("grpc.max_send_message_length", -1),
        # Without this a second server would share the port in silence.
        ("grpc.so_reuseport", 0),
        ("grpc.max_allowed_incoming_connections", config.clients.max_connections),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.max_connection_idle_ms", IDLE_MS),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        # A frame comes without a wait for leave to send more, and nothing is sent to measure the network in
        # between; larger messages get theirs as they come.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", LOOKAHEAD_BYTES),
        ("grpc.http2.max_frame_size", MAX_FRAME_BYTES),
        ("grpc.experimental.tcp_max_read_buffer_size", READ_BYTES),
        ("grpc.http2.settings_timeout", SETTINGS_MS),
        ("grpc.max_metadata_size", MAX_HEADER_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_HEADER_BYTES),
    )

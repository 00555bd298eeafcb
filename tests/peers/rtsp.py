"""GStreamer's RTSP server on a loopback address, for the system's Python: python3 rtsp.py CLIP.

It prints its port, and ends with its standard input. `/clip` plays CLIP (H.264 in MP4) once at its own pace;
`/tcp` and `/udp` the same over one transport only; `/secret` for the user and password below; `/pattern` is
JPEG without an end.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

USER, PASSWORD = "ward", "tr0car-Secret"
PATTERN = (
    "videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=240,framerate=25/1"
    " ! jpegenc ! rtpjpegpay name=pay0"
)
TCP, UDP = GstRtsp.RTSPLowerTrans.TCP, GstRtsp.RTSPLowerTrans.UDP


def serve(clip: str) -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service="0")
    server.set_auth(guard())
    played = f'filesrc location="{clip}" ! qtdemux ! rtph264pay name=pay0 config-interval=0'
    mounts = server.get_mount_points()
    for path, launch, transports, role in (
        ("/clip", played, TCP | UDP, "anyone"),
        ("/tcp", played, TCP, "anyone"),
        ("/udp", played, UDP, "anyone"),
        ("/secret", played, TCP | UDP, USER),
        ("/pattern", PATTERN, TCP | UDP, "anyone"),
    ):
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(f"( {launch} )")
        factory.set_protocols(transports)
        factory.add_role_from_structure(allowed(USER))
        factory.add_role_from_structure(allowed("anyone", construct=role == "anyone"))
        mounts.add_factory(path, factory)
    server.attach(None)
    print(server.get_bound_port(), flush=True)
    loop = GLib.MainLoop()
    GLib.io_add_watch(0, GLib.PRIORITY_DEFAULT, GLib.IOCondition.HUP, lambda *_: loop.quit())
    loop.run()


def guard() -> GstRtspServer.RTSPAuth:
    auth = GstRtspServer.RTSPAuth()
    auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    auth.set_default_token(token("anyone"))
    auth.add_digest(USER, PASSWORD, token(USER))
    return auth


def token(role: str) -> GstRtspServer.RTSPToken:
    made = GstRtspServer.RTSPToken()
    made.set_string("media.factory.role", role)
    return made


def allowed(role: str, *, construct: bool = True) -> Gst.Structure:
    made = Gst.Structure.new_empty(role)
    made.set_value("media.factory.access", True)
    made.set_value("media.factory.construct", construct)
    return made


serve(sys.argv[1])

"""Between protobuf messages and the dataclasses of planning, both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from google.protobuf import json_format

from trocar.planners.requests import CaseInput, Search, Settings
from trocar.planners.types import Planes, Template
from trocar.runtime.errors import InvalidInput
from trocar.v1 import common_pb2, planning_pb2

MEDIA_TYPES = {
    ".json": "application/json",
    ".dcm": "application/dicom",
    ".html": "text/html",
    ".png": "image/png",
    ".nrrd": "application/octet-stream",
}


# Reading requests, on the server.


def case_input(message: planning_pb2.CaseInput) -> CaseInput:
    """Read the message; which source was given stays visible as the one that is not None."""
    given = message.WhichOneof("source")
    return CaseInput(
        name=message.name,
        nrrd=message.nrrd if given == "nrrd" else None,
        rtstruct=message.rtstruct if given == "rtstruct" else None,
        contours=_contours(message.contours) if given == "contours" else None,
        phantom_seed=message.phantom_seed if given == "phantom_seed" else None,
        labels=dict(message.labels),
        roles=dict(message.roles),
    )


def _contours(message: planning_pb2.Contours) -> dict[str, list[tuple[float, np.ndarray[Any, Any]]]]:
    structures: dict[str, list[tuple[float, np.ndarray[Any, Any]]]] = {}
    for structure in message.structures:
        if structure.name in structures:
            raise InvalidInput(f"contours: expected each structure once, got {structure.name!r} twice")
        polygons = []
        for contour in structure.contours:
            if len(contour.xy_mm) % 2:
                raise InvalidInput(
                    f"contours of {structure.name!r}: expected pairs x, y, got {len(contour.xy_mm)} numbers"
                )
            polygons.append((contour.z_mm, np.array(contour.xy_mm, dtype=np.float64).reshape(-1, 2)))
        structures[structure.name] = polygons
    return structures


def settings(message: planning_pb2.PlanSettings) -> Settings:
    """Read the message; what is absent stays None, or the default protocol."""
    protocol, source = message.WhichOneof("protocol_input"), message.WhichOneof("source_input")
    return Settings(
        protocol=message.protocol or Settings().protocol,
        protocol_toml=message.protocol_toml if protocol == "protocol_toml" else None,
        source=message.source if source == "source" and message.source else None,
        source_json=message.source_json if source == "source_json" else None,
        strength_u=message.strength_u if message.HasField("strength_u") else None,
        prescription_gy=message.prescription_gy if message.HasField("prescription_gy") else None,
        template=_template(message.template) if message.HasField("template") else None,
        planes=_planes(message.planes) if message.HasField("planes") else None,
    )


def _template(message: planning_pb2.Template) -> Template:
    if len(message.origin_xy_mm) != 2:
        raise InvalidInput(f"template: expected an origin of 2 values, got {len(message.origin_xy_mm)}")
    x, y = message.origin_xy_mm
    return Template((x, y), message.pitch_mm, message.columns, message.rows)


def _planes(message: planning_pb2.Planes) -> Planes:
    return Planes(message.z0_mm, message.pitch_mm, message.count)


def search(message: planning_pb2.SearchSettings) -> Search:
    """Read the message."""
    return Search(
        budget_ms=message.budget_ms if message.HasField("budget_ms") else None,
        moves=message.moves if message.HasField("moves") else None,
        seed=message.seed,
        chains=message.chains if message.HasField("chains") else None,
        start=message.start if message.HasField("start") else None,
        alternatives=message.alternatives,
    )


def plan_content(message: planning_pb2.EvaluateRequest) -> bytes | dict[str, Any]:
    """Return the plan to evaluate: a file's content, or the document of a `Plan` message."""
    given = message.WhichOneof("plan_input")
    if given == "plan_file":
        return message.plan_file
    if given == "plan":
        return document_of(message.plan)
    raise InvalidInput("expected a plan, got none")


def dose_settings(message: planning_pb2.EvaluateDoseRequest) -> Settings:
    """Read what of the settings an HDR plan leaves open."""
    source = message.WhichOneof("source_input")
    return Settings(
        source=message.source if source == "source" and message.source else None,
        source_json=message.source_json if source == "source_json" else None,
        prescription_gy=message.prescription_gy if message.HasField("prescription_gy") else None,
    )


# Writing requests, on the client.


def case_message(case: CaseInput) -> planning_pb2.CaseInput:
    """Write the message that `case_input` reads."""
    message = planning_pb2.CaseInput(labels=case.labels, roles=case.roles, name=case.name)
    if case.nrrd is not None:
        message.nrrd = case.nrrd
    if case.rtstruct is not None:
        message.rtstruct = case.rtstruct
    if case.phantom_seed is not None:
        message.phantom_seed = case.phantom_seed
    for name, polygons in (case.contours or {}).items():
        structure = message.contours.structures.add(name=name)
        for z_mm, xy_mm in polygons:
            structure.contours.add(z_mm=z_mm, xy_mm=np.asarray(xy_mm, dtype=np.float64).ravel())
    return message


def settings_message(given: Settings) -> planning_pb2.PlanSettings:
    """Write the message that `settings` reads."""
    message = planning_pb2.PlanSettings(strength_u=given.strength_u, prescription_gy=given.prescription_gy)
    if given.protocol_toml is not None:
        message.protocol_toml = given.protocol_toml
    else:
        message.protocol = given.protocol
    if given.source_json is not None:
        message.source_json = given.source_json
    elif given.source is not None:
        message.source = given.source
    if given.template is not None:
        template = given.template
        message.template.origin_xy_mm.extend(template.origin_xy_mm)
        message.template.pitch_mm = template.pitch_mm
        message.template.columns = template.columns
        message.template.rows = template.rows
    if given.planes is not None:
        message.planes.z0_mm = given.planes.z0_mm
        message.planes.pitch_mm = given.planes.pitch_mm
        message.planes.count = given.planes.count
    return message


def search_message(given: Search) -> planning_pb2.SearchSettings:
    """Write the message that `search` reads."""
    return planning_pb2.SearchSettings(
        budget_ms=given.budget_ms,
        moves=given.moves,
        seed=given.seed,
        chains=given.chains,
        start=given.start,
        alternatives=given.alternatives,
    )


def dose_message(
    case: CaseInput, given: Settings, plan_file: bytes, dose_file: bytes, treated: str
) -> planning_pb2.EvaluateDoseRequest:
    """Write the message that `dose_settings` reads, with the files."""
    message = planning_pb2.EvaluateDoseRequest(
        case=case_message(case),
        rtplan=plan_file,
        rtdose=dose_file,
        prescription_gy=given.prescription_gy,
        treated=treated,
    )
    if given.source_json is not None:
        message.source_json = given.source_json
    elif given.source is not None:
        message.source = given.source
    return message


# Replies.


def reply_message(document: Mapping[str, Any], artifacts: Mapping[str, bytes]) -> planning_pb2.PlanReply:
    """Write the reply from the `plan --json` document: they have one shape."""
    reply = json_format.ParseDict(dict(document), planning_pb2.PlanReply())
    reply.artifacts.extend(
        common_pb2.Artifact(
            name=name,
            media_type=MEDIA_TYPES.get(PurePath(name).suffix, "application/octet-stream"),
            content=content,
        )
        for name, content in artifacts.items()
    )
    return reply


def dose_reply_message(document: Mapping[str, Any]) -> planning_pb2.EvaluateDoseReply:
    """Write the reply from the `evaluate --rtdose --json` document: they have one shape."""
    return json_format.ParseDict(dict(document), planning_pb2.EvaluateDoseReply())


def read_reply(
    reply: planning_pb2.PlanReply, wanted: Sequence[str]
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Read document and artifacts; a file that was not asked for is left out, whatever its name."""
    artifacts = {item.name: item.content for item in reply.artifacts if item.name in wanted}
    del reply.artifacts[:]
    document = document_of(reply)
    document.pop("artifacts", None)
    return document, artifacts


def document_of(message: Any) -> dict[str, Any]:
    """Return the JSON document of a message, zeros included."""
    document: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return document

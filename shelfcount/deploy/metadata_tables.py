"""Flatbuffer tables of TFLite Model Metadata, written by the order of their fields.

Two public schemas define them (github.com/google-ai-edge/mediapipe, mediapipe/tasks/metadata):
metadata_schema.fbs 1.5.0 and object_detector_metadata_schema.fbs 1.0.0. Python classes for
them come with MediaPipe only.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import number_types
from numpy.typing import NDArray

# Fields of each table in the schema's order: the index of a field is its slot. Fields after the
# last one that is written here are left out.
_FIELDS = {
    "ModelMetadata": (
        "name",
        "description",
        "version",
        "subgraph_metadata",
        "author",
        "license",
        "associated_files",
        "min_parser_version",
    ),
    "SubGraphMetadata": (
        *(
            "name",
            "description",
            "input_tensor_metadata",
            "output_tensor_metadata",
            "associated_files",
        ),
        *(
            "input_process_units",
            "output_process_units",
            "input_tensor_groups",
            "output_tensor_groups",
            "custom_metadata",
        ),
    ),
    "TensorMetadata": (
        "name",
        "description",
        "dimension_names",
        "content",
        "process_units",
        "stats",
        "associated_files",
    ),
    "TensorGroup": ("name", "tensor_names"),
    "CustomMetadata": ("name", "data"),
    "AssociatedFile": ("name", "description", "type"),
    "Content": ("content_properties_type", "content_properties", "range"),
    "FeatureProperties": (),
    "ImageProperties": ("color_space",),
    "BoundingBoxProperties": ("index", "type", "coordinate_type"),
    "ValueRange": ("min", "max"),
    "ProcessUnit": ("options_type", "options"),
    "NormalizationOptions": ("mean", "std"),
    "ScoreThresholdingOptions": ("global_score_threshold",),
    "Stats": ("max", "min"),
    # object_detector_metadata_schema.fbs
    "ObjectDetectorOptions": (
        "min_parser_version",
        "ssd_anchors_options",
        "tensors_decoding_options",
    ),
    "SsdAnchorsOptions": ("fixed_anchors_schema",),
    "FixedAnchorsSchema": ("anchors",),
    "FixedAnchor": ("x_center", "y_center", "width", "height"),
    "TensorsDecodingOptions": (
        *(
            "num_classes",
            "num_boxes",
            "num_coords",
            "keypoint_coord_offset",
            "num_keypoints",
            "num_values_per_keypoint",
        ),
        *(
            "x_scale",
            "y_scale",
            "w_scale",
            "h_scale",
            "apply_exponential_on_box_size",
            "sigmoid_score",
        ),
    ),
}
# Index of a table in its union, ContentProperties or ProcessUnitOptions.
UNION_MEMBERS = {
    "FeatureProperties": np.uint8(1),
    "ImageProperties": np.uint8(2),
    "BoundingBoxProperties": np.uint8(3),
    "NormalizationOptions": np.uint8(1),
    "ScoreThresholdingOptions": np.uint8(3),
}
_SCALARS = {
    "bool": number_types.BoolFlags,
    "int8": number_types.Int8Flags,
    "uint8": number_types.Uint8Flags,
    "int32": number_types.Int32Flags,
    "float32": number_types.Float32Flags,
}


# ---------------------------------------------------------------- flatbuffer writer


class MetadataTable:
    """Table of a flatbuffer, before it is written.

    Args:
        kind: Name of the table in the schema, a key of `_FIELDS`.
        fields: Values by field name: strings, bytes, one-dimensional arrays, lists of tables or
            strings, tables, or NumPy scalars of the type in the schema.
    """

    def __init__(self, kind: str, **fields: Any) -> None:
        self.kind, self.fields = kind, fields


def process_unit(options: MetadataTable) -> MetadataTable:
    """Return the ``ProcessUnit`` table that wraps `options`, a member of its union."""
    return MetadataTable("ProcessUnit", options_type=UNION_MEMBERS[options.kind], options=options)


def float_array(*values: float) -> NDArray[np.float32]:
    """Return the values as a (n,) float32 array, the type of numbers in the schema."""
    return np.array(values, np.float32)


def pack_table(table: MetadataTable, identifier: bytes) -> bytes:
    """Write a flatbuffer.

    Args:
        table: Root table.
        identifier: File identifier, 4 bytes.

    Returns:
        Content of the file.
    """
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(_write(builder, table), identifier)
    return bytes(builder.Output())


def _write(builder: Any, value: Any) -> int:
    """Write a value that is stored outside its table, after its parts, and return its offset."""
    match value:
        case str():
            return builder.CreateString(value)
        case bytes():
            # The schema requires CustomMetadata.data to be aligned to 16 bytes: it contains another
            # flatbuffer.
            builder.Prep(16, len(value))
            return builder.CreateByteVector(value)
        case np.ndarray():
            return builder.CreateNumpyVector(value)
        case list():
            offsets = [_write(builder, part) for part in value]
            builder.StartVector(4, len(offsets), 4)
            for offset in reversed(offsets):
                builder.PrependUOffsetTRelative(offset)
            return builder.EndVector()
        case _:
            return _write_table(builder, value)


def _write_table(builder: Any, table: MetadataTable) -> int:
    slots = _FIELDS[table.kind]
    offsets = {
        name: _write(builder, value)
        for name, value in table.fields.items()
        if not isinstance(value, np.generic)
    }
    builder.StartObject(len(slots))
    for name, value in table.fields.items():
        slot = slots.index(name)
        if name in offsets:
            builder.PrependUOffsetTRelativeSlot(slot, offsets[name], 0)
        else:
            builder.PrependSlot(_SCALARS[value.dtype.name], slot, value.item(), 0)
    return builder.EndObject()

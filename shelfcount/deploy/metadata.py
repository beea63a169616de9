"""TFLite Model Metadata of a detector, which MediaPipe Tasks and the TFLite Task Library need.

The values are read from the consumer, MediaPipe's mediapipe/tasks/cc/components/processors/
detection_postprocessing_graph.cc, and from its own writer, mediapipe/tasks/python/metadata/
metadata_writers/object_detector.py (1.2.2).
"""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np

from shelfcount.deploy import flatbuffer
from shelfcount.deploy.metadata_tables import (
    UNION_MEMBERS,
    MetadataTable,
    float_array,
    pack_table,
    process_unit,
)
from shelfcount.records import ModelSpec, ShelfcountError
from shelfcount.runtime.bundle import labels_txt
from shelfcount.vision import anchors
from shelfcount.vision.images import PIXEL_SCALE, PIXEL_ZERO
from shelfcount.words import plural

LABELS_FILE = "labels.txt"
# Schema versions that introduced the newest table in use, from the schema's history. Older parsers
# do not load the file.
_SINCE_TENSOR_GROUPS, _SINCE_CUSTOM_METADATA = "1.2.0", "1.5.0"
# Enumerations of metadata_schema.fbs.
_RGB, _BOUNDARIES, _RATIO = np.int8(1), np.int8(1), np.int8(0)
_TENSOR_AXIS_LABELS, _TENSOR_VALUE_LABELS = np.int8(2), np.int8(3)


def embed_metadata(model: bytes, spec: ModelSpec) -> bytes:
    """Embed metadata in the main artifact and append labels.txt.

    Args:
        model: Content of a .tflite file from `flatbuffer.add_input_and_postprocess`.
        spec: Specification of the model; ``provenance`` gives licence and attribution of the
            training photos.

    Returns:
        Content of the file with metadata, the same bytes for the same arguments. Existing metadata
        is replaced.

    Raises:
        ShelfcountError: If the outputs are not those of the post-processing operator.
    """
    edited = flatbuffer.read_model(model)
    graph = edited.subgraphs[0]
    names = tuple(graph.tensors[i].name.decode() for i in graph.outputs)
    if names != flatbuffer.OUTPUT_NAMES:
        raise ShelfcountError(
            f"the main artifact's outputs are {names}, but must be {flatbuffer.OUTPUT_NAMES}"
        )
    # Range 2 to 2 marks the values of one detection (see the schema's comment on Content.range).
    each = MetadataTable("ValueRange", min=np.int32(2), max=np.int32(2))
    subgraph = MetadataTable(
        "SubGraphMetadata",
        input_tensor_metadata=[_image(0, 255)],
        output_tensor_metadata=[
            _tensor(
                "location",
                "Boxes, highest score first: top, left, bottom, right as ratios of the photo.",
                _boxes(),
                range=each,
            ),
            _tensor(
                "category",
                "Class index of each box.",
                range=each,
                associated_files=[_labels(spec, _TENSOR_VALUE_LABELS)],
            ),
            _tensor("score", "Score of each box.", range=each, process_units=[_threshold(spec)]),
            _tensor(
                "number of detections",
                "Number of detections. The values after this number of detections are undefined.",
            ),
        ],
        output_tensor_groups=[
            MetadataTable(
                "TensorGroup",
                name="detection_result",
                tensor_names=list(flatbuffer.OUTPUT_NAMES[:3]),
            )
        ],
    )
    return _embed(edited, spec, subgraph, _SINCE_TENSOR_GROUPS)


def embed_raw_metadata(half: bytes, spec: ModelSpec) -> bytes:
    """Create the artifact for GPU and Core ML delegates.

    It has no custom operator. From its metadata, MediaPipe decodes the outputs itself.

    Args:
        half: Content of a .tflite file from `convert.quantize` with the recipe 'float16'. It has
            one float32 input, (1, H, W, 3) in [-1, 1], and the float32 outputs location and scores.
        spec: Specification of the model.

    Returns:
        Content of the file with all weights in the flatbuffer, the input named image, the outputs
        named location and score, metadata, and labels.txt appended. The same arguments give the
        same bytes.

    Raises:
        ShelfcountError: If the outputs are not (1, A, 4) and (1, A, C) for the anchors and classes
            of `spec`.
    """
    edited = flatbuffer.read_heads(half, spec)
    graph = edited.subgraphs[0]
    for index, name in zip(
        [*graph.inputs, *graph.outputs], (flatbuffer.INPUT_NAME, "location", "score"), strict=True
    ):
        graph.tensors[index].name = name.encode()
    flatbuffer.name_signature(edited)
    subgraph = MetadataTable(
        "SubGraphMetadata",
        input_tensor_metadata=[
            _image((0 - PIXEL_ZERO) / PIXEL_SCALE, (255 - PIXEL_ZERO) / PIXEL_SCALE)
        ],
        output_tensor_metadata=[
            _tensor(
                "location",
                "Box deltas y, x, h, w of each anchor, to be decoded as in DETECTOR_METADATA.",
                _boxes(),
            ),
            _tensor(
                "score",
                "Score of each class at each anchor, in [0, 1].",
                process_units=[_threshold(spec)],
                associated_files=[_labels(spec, _TENSOR_AXIS_LABELS)],
            ),
        ],
        custom_metadata=[
            MetadataTable(
                "CustomMetadata",
                name="DETECTOR_METADATA",
                data=pack_table(_decoding(spec), b"V001"),
            )
        ],
    )
    return _embed(edited, spec, subgraph, _SINCE_CUSTOM_METADATA)


def _embed(model: Any, spec: ModelSpec, subgraph: MetadataTable, min_parser_version: str) -> bytes:
    trained = spec.provenance.get("trained", {})
    table = MetadataTable(
        "ModelMetadata",
        name=spec.name,
        description=(
            f"Detects {plural(len(spec.classes), 'class', 'classes')} of products on photos of "
            f"shop shelves. Stretch the whole upright photo to {spec.width} x {spec.height} "
            f"pixels. Use the boxes with a score of at least {spec.score_threshold:g}."
        ),
        version=f"trained {trained.get('date', 'at an unknown time')}",
        subgraph_metadata=[subgraph],
        author=f"shelfcount {trained.get('versions', {}).get('shelfcount', '')}".strip(),
        license=_source(spec),
        min_parser_version=min_parser_version,
    )
    flatbuffer.set_metadata(model, "TFLITE_METADATA", pack_table(table, b"M001"))
    return _append(flatbuffer.write_model(model), LABELS_FILE, labels_txt(spec.classes))


def _append(model: bytes, name: str, content: bytes) -> bytes:
    """Append a file as a zip archive, so that readers of both formats can open the result.

    Args:
        model: Content of a .tflite file.
        name: Name of the appended file.
        content: Content of the appended file.
    """
    file = io.BytesIO()
    file.write(model)
    # MediaPipe reads uncompressed entries only. Date, system and permissions are fixed, so that the
    # bytes do not depend on the clock or the machine.
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system, entry.external_attr = 3, 0o644 << 16
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(entry, content)
    return file.getvalue()


# ---------------------------------------------------------------- content of the metadata


def _source(spec: ModelSpec) -> str:
    """Return source and licence of the training photos, which licences such as CC BY require."""
    source = spec.provenance.get("attribution") or "source not stated"
    licence = spec.provenance.get("licence") or "not stated"
    return f"Training photos: {source}. Licence: {licence}."


def _labels(spec: ModelSpec, kind: np.int8) -> MetadataTable:
    description = f"Class names, one per line, in the order of the class indices. {_source(spec)}"
    return MetadataTable("AssociatedFile", name=LABELS_FILE, description=description, type=kind)


def _image(low: float, high: float) -> MetadataTable:
    """Describe the input tensor, in which a black pixel is `low` and a white pixel is `high`."""
    return _tensor(
        flatbuffer.INPUT_NAME,
        "The whole upright photo, stretched to the input.",
        MetadataTable("ImageProperties", color_space=_RGB),
        process_units=[
            process_unit(
                MetadataTable(
                    "NormalizationOptions",
                    mean=float_array(PIXEL_ZERO),
                    std=float_array(PIXEL_SCALE),
                )
            )
        ],
        stats=MetadataTable("Stats", max=float_array(high), min=float_array(low)),
    )


def _boxes() -> MetadataTable:
    # Indices of left, top, right and bottom in (top, left, bottom, right).
    index = np.array([1, 0, 3, 2], np.uint32)
    return MetadataTable(
        "BoundingBoxProperties", index=index, type=_BOUNDARIES, coordinate_type=_RATIO
    )


def _threshold(spec: ModelSpec) -> MetadataTable:
    """Describe the score threshold that was chosen on validation photos.

    MediaPipe uses it only if the app sets no threshold; its Python API always sets one (0).
    """
    return process_unit(
        MetadataTable(
            "ScoreThresholdingOptions", global_score_threshold=np.float32(spec.score_threshold)
        )
    )


def _decoding(spec: ModelSpec) -> MetadataTable:
    """Describe anchors and box decoding.

    With them, MediaPipe does what the post-processing operator does in the main artifact.
    """
    table = anchors.anchor_grid(spec.levels, spec.height, spec.width)
    fixed = [
        MetadataTable("FixedAnchor", x_center=x, y_center=y, width=w, height=h)
        for y, x, h, w in table
    ]
    y_scale, x_scale, h_scale, w_scale = (np.float32(scale) for scale in anchors.CODER_SCALES)
    options = MetadataTable(
        "TensorsDecodingOptions",
        num_classes=np.int32(len(spec.classes)),
        num_boxes=np.int32(len(table)),
        num_coords=np.int32(4),
        # No keypoints after the four box values, whose order in MediaPipe is always y, x, h, w.
        keypoint_coord_offset=np.int32(0),
        num_keypoints=np.int32(0),
        num_values_per_keypoint=np.int32(2),
        x_scale=x_scale,
        y_scale=y_scale,
        w_scale=w_scale,
        h_scale=h_scale,
        apply_exponential_on_box_size=np.bool_(True),
        # The model applies the sigmoid itself.
        sigmoid_score=np.bool_(False),
    )
    return MetadataTable(
        "ObjectDetectorOptions",
        min_parser_version="1.0.0",
        ssd_anchors_options=MetadataTable(
            "SsdAnchorsOptions",
            fixed_anchors_schema=MetadataTable("FixedAnchorsSchema", anchors=fixed),
        ),
        tensors_decoding_options=options,
    )


def _tensor(
    name: str,
    description: str,
    properties: MetadataTable | None = None,
    range: MetadataTable | None = None,
    **fields: Any,
) -> MetadataTable:
    properties = properties or MetadataTable("FeatureProperties")
    content = MetadataTable(
        "Content",
        content_properties_type=UNION_MEMBERS[properties.kind],
        content_properties=properties,
    )
    if range is not None:
        content.fields["range"] = range
    return MetadataTable(
        "TensorMetadata", name=name, description=description, content=content, **fields
    )

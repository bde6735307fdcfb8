"""GeoJSON in pixels (y downwards), a file for each image, with holes; QuPath reads it as it is."""

import json
from typing import Any

import numpy as np

from boxdepth.evaluate.export.job import Found, Job, Written, side_names, write_json
from boxdepth.evaluate.export.shapes import Part, rasterise


def write(job: Job) -> Written:
    """A feature for each object."""
    written = {}
    files = side_names(job, ".geojson")
    for image, rows in job.by_image():
        features = [_feature(job, row) for row in rows]
        write_json(job.out / files[image], {"type": "FeatureCollection", "features": features})
        written.update(dict.fromkeys(rows, files[image]))
    return written


def read(job: Job) -> Found:
    """By annotation id."""
    files = side_names(job, ".geojson")
    for image, rows in job.by_image():
        collection = json.loads((job.out / files[image]).read_text("utf-8"))
        found = {feature["id"]: feature["geometry"] for feature in collection["features"]}
        for row in rows:
            geometry = found[str(job.items.ids[row])]
            several = geometry["type"] == "MultiPolygon"
            polygons = geometry["coordinates"] if several else [geometry["coordinates"]]
            parts = [
                Part(outer=np.array(rings[0]), holes=tuple(np.array(r) for r in rings[1:]))
                for rings in polygons
            ]
            yield row, rasterise(parts, job.size(image))


def _feature(job: Job, row: int) -> dict[str, Any]:
    record = job.items.records[row]
    polygons = [
        [ring.round(3).tolist() for ring in (part.outer, *part.holes)]
        for part in job.outline(row).parts
    ]
    single = len(polygons) == 1
    kept = {key: record[key] for key in ("score", "quality") if key in record}
    return {
        "type": "Feature",
        "id": str(job.items.ids[row]),
        "geometry": {
            "type": "Polygon" if single else "MultiPolygon",
            "coordinates": polygons[0] if single else polygons,
        },
        "properties": {
            "objectType": "annotation",
            "classification": {"name": job.label(row)},
            "annotation_id": int(job.items.ids[row]),
            "image_id": job.items.image_id(row),
            "iscrowd": int(job.items.crowd[row]),
            **kept,
        },
    }

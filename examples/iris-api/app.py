"""The iris model over HTTP: POST /predict, GET /health. Every bad request gets a 400 that says what is wrong."""

from __future__ import annotations

import os
from typing import Any

import joblib
from flask import Flask, jsonify, request
from werkzeug.exceptions import BadRequest, HTTPException

BUNDLE = joblib.load(os.path.join(os.path.dirname(os.path.abspath(__file__)), "model.joblib"))
FEATURES: list[str] = BUNDLE["features"]

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 16 * 1024
app.json.sort_keys = False


@app.get("/health")
def health() -> Any:
    return jsonify(status="ok", accuracy=round(BUNDLE["accuracy"], 3))


@app.post("/predict")
def predict() -> Any:
    row = parse_features(request.get_json(silent=True))
    probabilities = BUNDLE["model"].predict_proba([row])[0]
    best = int(probabilities.argmax())
    return jsonify(
        prediction=best,
        class_name=BUNDLE["classes"][best],
        probabilities={
            name: round(float(p), 4) for name, p in zip(BUNDLE["classes"], probabilities, strict=True)
        },
    )


def parse_features(body: Any) -> list[float]:
    """The four measurements in centimetres; BadRequest says what is wrong with anything else."""
    if not isinstance(body, dict):
        raise BadRequest('send a JSON object such as {"features": [5.1, 3.5, 1.4, 0.2]}')
    row = body.get("features")
    if not isinstance(row, list) or len(row) != len(FEATURES):
        raise BadRequest(f"'features' must be a list of {len(FEATURES)} numbers: {', '.join(FEATURES)}")
    for value in row:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise BadRequest("every feature must be a number")
        if not 0 <= value <= 100:  # false for NaN too
            raise BadRequest("a measurement lies between 0 and 100 centimetres")
    return [float(value) for value in row]


@app.errorhandler(HTTPException)
def as_json(error: HTTPException) -> Any:
    return jsonify(error=error.description), error.code

"""Train the iris classifier and write it, with what the service needs to know about it, to model.joblib."""

from __future__ import annotations

import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

SEED = 42


def main() -> None:
    iris = load_iris()
    train_x, test_x, train_y, test_y = train_test_split(
        iris.data, iris.target, test_size=0.2, random_state=SEED, stratify=iris.target
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, random_state=SEED))
    model.fit(train_x, train_y)
    accuracy = accuracy_score(test_y, model.predict(test_x))
    print(f"accuracy on {len(test_y)} held-out flowers: {accuracy:.3f}")
    if accuracy < 0.9:
        raise SystemExit("the model is not good enough to be served")
    joblib.dump(
        {
            "model": model,
            "classes": [str(name) for name in iris.target_names],
            "features": [str(name) for name in iris.feature_names],
            "accuracy": float(accuracy),
        },
        "model.joblib",
    )


if __name__ == "__main__":
    main()

"""Make tests/vectors/robust.json: what ByzFL makes of some vectors, to hold our robust rules to.

ByzFL asks for torchvision and another torch, so it is no dependency. In a throw-away environment with numpy, scipy
and torch:

    pip install --no-deps byzfl==0.0.11
    python scripts/make_robust_vectors.py
"""

import importlib.util
import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np

VECTORS = Path(__file__).resolve().parent.parent / "tests" / "vectors" / "robust.json"
MEDIAN_STEPS, CLIPPING_STEPS = 8, 3


def main() -> None:
    """Write the file."""
    _import_aggregators_alone()
    cases = [_case(seed, *shape) for seed, shape in enumerate([(3, 1), (5, 1), (7, 2), (12, 3), (20, 5)])]
    VECTORS.write_text(json.dumps({"made_with": "byzfl 0.0.11", "cases": cases}, indent=1) + "\n")
    print(f"{VECTORS}: {len(cases)} cases")


def _import_aggregators_alone() -> None:
    """ByzFL's packages import its benchmark, which needs torchvision and seaborn; the rules do not."""
    root = importlib.util.find_spec("byzfl")
    assert root is not None and root.submodule_search_locations
    for name in ("byzfl", "byzfl.aggregators", "byzfl.utils"):
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [
            str(Path(place, *name.split(".")[1:])) for place in root.submodule_search_locations
        ]
        sys.modules[name] = importlib.util.module_from_spec(spec)


def _case(seed: int, count: int, bad: int) -> dict[str, Any]:
    """`count` float32 vectors of which the first `bad` are far off, and what each rule makes of them."""
    from byzfl.aggregators import aggregators as rules
    from byzfl.aggregators.preaggregators import NNM

    rng = np.random.default_rng(seed)
    vectors = rng.normal(0, 1, (count, 24)) + rng.normal(0, 0.5, 24)
    vectors[:bad] *= -4
    vectors = vectors.astype(np.float32).astype(np.float64)
    found = {
        "trimmed-mean": rules.TrMean(bad)(vectors),
        "nnm": rules.TrMean(bad)(NNM(bad)(vectors)),
        "multi-krum": rules.MultiKrum(bad)(vectors),
        "geometric-median": rules.GeometricMedian(nu=1e-9, T=MEDIAN_STEPS)(vectors),
        "centered-clipping": _clipped(vectors, rules.CenteredClipping),
    }
    return {
        "bad": bad,
        "vectors": vectors.tolist(),
        "results": {name: result.tolist() for name, result in found.items()},
    }


def _clipped(vectors: Any, rule: Any) -> Any:
    """Centred clipping where the radius is the lower median of the distances, anew in each step."""
    center = np.zeros(vectors.shape[1])
    for _ in range(CLIPPING_STEPS):
        radius = np.sort(np.linalg.norm(vectors - center, axis=1))[(len(vectors) - 1) // 2]
        step = rule(L=1, tau=float(radius))
        step.m = center
        center = step(vectors)
    return center


if __name__ == "__main__":
    main()

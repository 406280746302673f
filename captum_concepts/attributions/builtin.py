"""The built-in attribution methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from captum_concepts.attributions.methods import deep_lift_shap, gradient_shap, integrated_gradients, saliency

METHODS: Mapping[str, Callable[..., np.ndarray]] = {
    "saliency": saliency,
    "integrated_gradients": integrated_gradients,
    "gradient_shap": gradient_shap,
    "deep_lift_shap": deep_lift_shap,
}
#: These need no baselines.
ABSOLUTE = ("saliency",)

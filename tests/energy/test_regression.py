"""The interval of a mixture of Student t distributions holds the probability that it says."""

import numpy as np
import pytest
from scipy import stats

from flopray.energy.regression import Posterior


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_half_a_width_holds_the_level_of_any_mixture(level):
    random = np.random.default_rng(0)
    for _ in range(40):
        components = int(random.integers(1, 40))
        weight = random.random(components) ** random.integers(1, 12)
        centre = 1 + random.standard_normal(components) * 10.0 ** random.uniform(-8, 1)
        scale = 10.0 ** (random.uniform(-6, 1) + random.standard_normal(components))
        mixture = Posterior(weight / weight.sum(), centre, scale, float(random.integers(4, 60)), 1.0, 1.0)
        # Narrow components come in at a jump: the level lies between those of a little less and a little more width.
        ends = mixture.mean + mixture.half_width(level) * np.array([[-1 - 1e-6], [-1 + 1e-6], [1 - 1e-6], [1 + 1e-6]])
        at_ends = stats.t.cdf((ends - centre) / scale, mixture.dof) @ mixture.weight
        assert at_ends[2] - at_ends[1] <= level <= at_ends[3] - at_ends[0]

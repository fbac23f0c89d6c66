"""Second implementations of the statistics and of a family of comparisons: scipy, statsmodels and plain loops; optimisers.

One comparison at a time: d is a sequence of differences, NaN a missing pair. Slow, and without the project's own formulas
wherever a library has the test.
"""

import functools
import itertools
import math
import statistics

import numpy as np
import torch
from scipy import integrate, special, stats
from statsmodels.stats import contingency_tables
from statsmodels.stats.weightstats import ttost_paired

NAN, INF = math.nan, math.inf


def optimiser(cell, twin):
    """What `cell` names, as a class of torch.optim: for torch.nn twins, which make_step does not train."""
    parameters = list(twin.parameters())
    if not cell.weight_decay_norm:
        norms = {p for module in twin.modules() if "Norm" in type(module).__name__ for p in module.parameters()}
        spared = {"params": [p for p in parameters if p in norms], "weight_decay": 0.0}
        parameters = [{"params": [p for p in parameters if p not in norms]}, spared]
    if cell.optimiser == "sgd":
        return torch.optim.SGD(parameters, cell.lr, cell.momentum, weight_decay=cell.weight_decay)
    return torch.optim.Adam(parameters, cell.lr, weight_decay=cell.weight_decay)


def present(d):
    return [float(x) for x in d if math.isfinite(x)]


def mean(d):
    return statistics.fmean(present(d)) if present(d) else NAN


def sd(d, floor=0.0):
    return max(statistics.stdev(present(d)), floor) if len(present(d)) > 1 else NAN


def standard_error(d, floor=0.0):
    return sd(d, floor) / math.sqrt(len(present(d)))


def t_test(d, floor=0.0):
    d = present(d)
    if len(d) < 2:
        return 1.0
    if sd(d) > floor:
        return stats.ttest_1samp(d, 0).pvalue
    if sd(d, floor) == 0:
        return 1.0 if d[0] == 0 else 0.0
    return 2 * stats.t.sf(abs(mean(d)) / standard_error(d, floor), len(d) - 1)


def t_interval(d, level=0.95, floor=0.0):
    d = present(d)
    if len(d) < 2:
        return (-INF, INF) if d else (NAN, NAN)
    if sd(d) > floor:
        return tuple(stats.ttest_1samp(d, 0).confidence_interval(level))
    half = stats.t.isf((1 - level) / 2, len(d) - 1) * standard_error(d, floor)
    return mean(d) - half, mean(d) + half


def tost(d, margin, floor=0.0):
    d = present(d)
    if len(d) < 2:
        return 1.0
    if sd(d) > floor:
        return ttost_paired(np.array(d), np.zeros(len(d)), -margin, margin)[0]
    error = standard_error(d, floor)
    if error == 0:
        return 0.0 if abs(mean(d)) < margin else 1.0
    return stats.t.sf((margin - abs(mean(d))) / error, len(d) - 1)


def sign_flip(d):
    """By scipy, which flips the signs of a single sample and counts all patterns.

    In whole 2⁻⁴⁰ of the largest difference: sums are exact then, and equal where they cancel.
    """
    d = np.array(present(d))
    if len(d) < 2 or not d.any():
        return 1.0
    d = np.round(d / np.abs(d).max() * 2**40)
    test = stats.permutation_test((d,), np.sum, permutation_type="samples", n_resamples=np.inf, vectorized=True)
    return test.pvalue


def sign_flip_enumerated(d):
    """By counting, pattern after pattern."""
    sums = [abs(math.fsum(s * x for s, x in zip(signs, d, strict=True))) for signs in signs_of(len(d))]
    return sum(total >= abs(math.fsum(d)) * (1 - 1e-12) for total in sums) / len(sums)


def signs_of(n):
    return list(itertools.product((1, -1), repeat=n))


def effect_size(d, floor=0.0):
    d = present(d)
    if len(d) < 3:
        return NAN
    nu = len(d) - 1
    correction = special.gamma(nu / 2) / (math.sqrt(nu / 2) * special.gamma((nu - 1) / 2))
    if sd(d, floor) == 0:
        return NAN if d[0] == 0 else math.copysign(INF, d[0])
    return correction * mean(d) / sd(d, floor)


def improvement(d, larger_is_better):
    """Share of pairs in which the first arm is better, and the two roots of Wilson's (1927) quadratic equation."""
    d = present(d)
    if not d:
        return NAN, NAN, NAN
    share = sum(0.5 if x == 0 else float((x > 0) == larger_is_better) for x in d) / len(d)
    z2 = stats.norm.ppf(0.975) ** 2 / len(d)
    roots = np.roots([1 + z2, -2 * share - z2, share**2])  # (share − p)² = z²·p(1 − p)/n
    return share, *sorted(roots.real)


def spread(a, b, floor=0.0):
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if math.isfinite(x) and math.isfinite(y)]
    if len(pairs) < 2:
        return NAN, 1.0
    a, b = zip(*pairs, strict=True)
    from_a = [abs(x - statistics.median(a)) for x in a]
    from_b = [abs(y - statistics.median(b)) for y in b]
    both_vary = min(statistics.stdev(a), statistics.stdev(b)) > floor
    ratio = statistics.variance(a) / statistics.variance(b) if both_vary else NAN
    if len(pairs) < 5:
        return ratio, 1.0
    deviations = np.subtract(from_a, from_b).round(12)
    if len(set(deviations)) == 1 or sd(deviations) <= floor:
        return ratio, t_test(deviations, floor)
    return ratio, stats.ttest_rel(from_a, from_b).pvalue


def mcnemar(diverged_a, diverged_b, pairs):
    table = [[0, 0], [0, 0]]
    for x, y, both in zip(diverged_a, diverged_b, pairs, strict=True):
        if both:
            table[int(x)][int(y)] += 1
    return min(1.0, contingency_tables.mcnemar(table, exact=True).pvalue) if table[0][1] + table[1][0] else 1.0


def holm(p):
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, p[i] * (len(p) - rank)))
        adjusted[i] = largest
    return adjusted


def benjamini_hochberg(p):
    return list(stats.false_discovery_control(p, method="bh"))


def holm_rejects_with(p, replaced, alpha):
    return [holm([*p[:i], q, *p[i + 1 :]])[i] <= alpha for i, q in enumerate(replaced)]


def half_width(d, alpha, tests_left, floor=0.0):
    d = present(d)
    return stats.t.isf(alpha / max(tests_left, 1), len(d) - 1) * standard_error(d, floor) if len(d) > 1 else INF


def tost_power(n, s, margin, alpha):
    """Of TOST at true difference 0 and true sd s: P(|mean| < margin − t·s·u/√n), integrated over u = sample sd / s."""
    if n < 2:
        return 0.0
    if s == 0:
        return 1.0
    t, reach = stats.t.isf(alpha, n - 1), margin * math.sqrt(n) / s
    of_sd = stats.chi(n - 1, scale=1 / math.sqrt(n - 1))
    end = min(reach / t, of_sd.isf(1e-14))
    power, _ = integrate.quad(lambda u: (2 * stats.norm.cdf(reach - t * u) - 1) * of_sd.pdf(u), 0, end, limit=200)
    return power


def seeds_needed(n, s, margin, alpha, planned):
    """By trying one number after the other."""
    if n < 2:
        return NAN
    upper, start = s * math.sqrt((n - 1) / stats.chi2.ppf(0.2, n - 1)), 5
    while not (enough := errors_needed(start, alpha, planned) * upper <= margin).any():
        start += len(enough)
    return start + np.flatnonzero(enough)[0]


@functools.cache
def errors_needed(start, alpha, planned):
    """For each of 20,000 numbers of seeds, how many sds the two tests together leave undecided."""
    n = np.arange(start, start + 20_000)
    return -(special.stdtrit(n - 1, alpha / planned / 2) + special.stdtrit(n - 1, alpha / planned)) / np.sqrt(n)


def skewness(d):
    d = present(d)
    if len(d) < 2:
        return NAN
    return 0.0 if len(set(d)) == 1 else stats.skew(d)


def farthest(d):
    """Index of the pair farthest from the median."""
    middle = statistics.median(present(d))
    return max((i for i in range(len(d)) if math.isfinite(d[i])), key=lambda i: abs(d[i] - middle))


def verdict(n, different, equivalent, half, margin, any_diverged):
    if n >= 5 and different:
        return "negligible" if equivalent and margin is not None else "different"
    if margin is None:
        return "inconclusive"
    if n >= 5 and equivalent:
        return "equivalent"
    if any_diverged:
        return "inconclusive"
    return "underpowered" if n < 5 or half >= margin else "inconclusive"


def worst_outcome(metric, classes, losses):
    """What a diverged run counts as. losses: of the runs of both arms that are done."""
    if metric.endswith("accuracy"):
        return 1 / classes
    if metric.endswith("calibration_error"):
        return 1.0
    return max([math.log(classes), *present(losses)])


def error_of_test_set(correct_a, seeds_a, correct_b, seeds_b):
    if min(seeds_a, seeds_b) < 2:
        return NAN
    shares_a, shares_b = [c / seeds_a for c in correct_a], [c / seeds_b for c in correct_b]
    differences = [a - b for a, b in zip(shares_a, shares_b, strict=True)]
    of_seeds = statistics.fmean(a * (1 - a) / (seeds_a - 1) for a in shares_a)
    of_seeds += statistics.fmean(b * (1 - b) / (seeds_b - 1) for b in shares_b)
    return math.sqrt(max(statistics.variance(differences) - of_seeds, 0) / len(differences))


def family(grid, rows, metric, contrast, examples=None):
    """The comparisons of one family, a dictionary each. rows: the runs of the store, as dictionaries.

    examples: by order and pair, (right answers of each test example, seeds).
    """
    a, b = grid.analysis.pairs[contrast]
    margin, alpha = grid.analysis.margin.get(metric), grid.analysis.alpha
    cells = list(grid.cells())
    pairs = [cell.without("order") for cell in cells if cell.order == a]
    pairs = [pair for pair in pairs if any(cell.order == b and cell.without("order") == pair for cell in cells)]
    store = {(row["cell"].without("order"), row["cell"].order, row["seed"]): row for row in rows}
    family = [_outcomes(store, pair, (a, b), range(grid.seeds.count), metric) for pair in pairs]
    count = len(family)
    for c in family:
        floor = c["floor"]
        c["d"] = [x - y for x, y in zip(c["a"], c["b"], strict=True)]
        c["finished"] = [NAN if x or y else d for d, x, y in zip(c["d"], c["div_a"], c["div_b"], strict=True)]
        c["n"], c["missing"] = len(present(c["d"])), len(c["d"]) - len(present(c["d"]))
        c["mean_a"], c["mean_b"], c["difference"] = mean(c["a"]), mean(c["b"]), mean(c["d"])
        c["low"], c["high"] = t_interval(c["d"], 0.95, floor)
        c["low_family"], c["high_family"] = t_interval(c["d"], 1 - alpha / count, floor)
        c["p"], c["p_sign_flip"] = t_test(c["d"], floor), sign_flip(c["d"])
        c["p_equivalence"] = _equivalence(c["d"], c["finished"], margin, floor)
        c["sd"], c["effect_size"] = sd(c["d"], floor), effect_size(c["d"], floor)
        shares = improvement(c["d"], metric.endswith("accuracy"))
        c["probability_of_improvement"], c["improvement_low"], c["improvement_high"] = shares
        c["variance_ratio"], c["p_variance"] = spread(c["done_a"], c["done_b"], floor)
        c["diverged_a"], c["diverged_b"] = sum(c["div_a"]), sum(c["div_b"])
        c["p_diverged"] = mcnemar(c["div_a"], c["div_b"], [math.isfinite(d) for d in c["d"]])
        c["difference_finished"] = mean(c["finished"])
        c["margin"] = NAN if margin is None else margin
        c["power"] = NAN if margin is None else tost_power(c["n"], c["sd"], margin, alpha / count)
        c["seeds_needed"] = NAN if margin is None else seeds_needed(c["n"], c["sd"], margin, alpha, count)
        counts = [(examples or {}).get((order, c["pair"])) for order in (a, b)]
        known = metric == "test_accuracy" and None not in counts
        c["test_set_error"] = error_of_test_set(*counts[0], *counts[1]) if known else NAN
        c["look"] = 1
    for name, adjust in (("p", holm), ("p_diverged", holm), ("p_equivalence", holm)):
        adjusted = adjust([c[name] for c in family]) if math.isfinite(family[0][name]) else [NAN] * count
        for c, p in zip(family, adjusted, strict=True):
            c[f"{name}_holm"] = p
    for c, p in zip(family, benjamini_hochberg([c["p"] for c in family]), strict=True):
        c["p_bh"] = p
    rejected = sum(c["p_equivalence_holm"] <= alpha for c in family)
    for c in family:
        half = half_width(c["d"], alpha, count - rejected, c["floor"])
        different, equivalent = c["p_holm"] <= alpha, c["p_equivalence_holm"] <= alpha
        diverged = c["diverged_a"] + c["diverged_b"] > 0
        c["verdict"] = verdict(c["n"], different, equivalent, half, margin, diverged)
    for i, c in enumerate(family):
        c["notes"] = "; ".join(_notes(c, margin, metric, _one_pair_decides(family, i, margin, alpha)))
    rates = [dict.fromkeys(("lr_a", "lr_b"), dict(c["pair"])["lr"]) for c in family]
    return [
        {**dict(c["pair"]), **lrs, "contrast": contrast, "metric": metric, **c}
        for c, lrs in zip(family, rates, strict=True)
    ]


def _outcomes(store, pair, orders, seeds, metric):
    """Outcomes of both arms by seed, NaN where the pair lacks one; what is known of the data set."""
    runs = [[store.get((pair, order, seed)) for seed in seeds] for order in orders]
    there = [run for arm in runs for run in arm if run]
    classes = max((run["classes"] for run in there), default=2)
    part = next(part for part in ("train", "val", "test") if f"{part}_" in metric)
    examples = max((run[f"{part}_examples"] for run in there), default=1)
    done = [[run[metric] if run and run["status"] == "done" else NAN for run in arm] for arm in runs]
    diverged = [[bool(run) and run["status"] == "diverged" for run in arm] for arm in runs]
    worst = worst_outcome(metric, classes, done[0] + done[1])
    scored = [[worst if x else y for x, y in zip(*arm, strict=True)] for arm in zip(diverged, done, strict=True)]
    for seed in range(len(seeds)):
        if not all(math.isfinite(arm[seed]) for arm in scored):
            scored[0][seed] = scored[1][seed] = NAN
            diverged[0][seed] = diverged[1][seed] = False
    return {
        "pair": pair, "a": scored[0], "b": scored[1], "div_a": diverged[0], "div_b": diverged[1],
        "done_a": done[0], "done_b": done[1], "classes": classes,
        "floor": (1 / examples if metric.endswith("accuracy") else 1e-6) / math.sqrt(6),
    }  # fmt: skip


def _equivalence(d, finished, margin, floor):
    return NAN if margin is None else max(tost(d, margin, floor), tost(finished, margin, floor))


def _one_pair_decides(family, i, margin, alpha):
    """Compute the verdict of comparison i again without its farthest pair, all else of the family as it was."""
    c = family[i]
    if not c["n"]:
        return False
    gone = farthest(c["d"])
    d, finished = ([NAN if j == gone else x for j, x in enumerate(c[name])] for name in ("d", "finished"))
    p = [other["p"] for other in family]
    different = holm([*p[:i], t_test(d, c["floor"]), *p[i + 1 :]])[i] <= alpha
    others = sum(other["p_equivalence_holm"] <= alpha for j, other in enumerate(family) if j != i)
    equivalent = False
    if margin is not None:
        p = [other["p_equivalence"] for other in family]
        equivalent = holm([*p[:i], _equivalence(d, finished, margin, c["floor"]), *p[i + 1 :]])[i] <= alpha
    half = half_width(d, alpha, len(family) - others - equivalent, c["floor"])
    diverged = c["diverged_a"] + c["diverged_b"] > 0
    return verdict(c["n"], different, equivalent, half, margin, diverged) != c["verdict"]


def _notes(c, margin, metric, one_pair_decides):
    notes = []
    if c["n"] < 5:
        notes.append("n < 5")
    if margin is None:
        notes.append("no margin")
    if c["n"] >= 10 and abs(skewness(c["d"])) > 1:
        notes.append("skewed")
    if one_pair_decides:
        notes.append("one pair decides")
    if any(c["div_a"]) or any(c["div_b"]):
        notes.append("diverged")
    if any(x and y for x, y in zip(c["div_a"], c["div_b"], strict=True)):
        notes.append("both diverged")
    finished = c["difference_finished"]
    if c["n"] and (not math.isfinite(finished) or finished * c["difference"] < 0):
        notes.append("sign depends on diverged runs")
    if c["n"] and margin is not None and not metric.endswith("calibration_error"):
        notes += _extremes(c["mean_a"], c["mean_b"], c["classes"], margin, metric.endswith("accuracy"))
    if margin is not None and c["test_set_error"] > margin:
        notes.append("margin below test-set noise")
    return notes


def _extremes(a, b, classes, margin, is_accuracy):
    if is_accuracy:
        names = [("floor", max(a, b) < 1 / classes + margin), ("ceiling", min(a, b) > 1 - margin)]
    else:
        names = [("floor", min(a, b) > math.log(classes) - margin), ("ceiling", max(a, b) < margin)]
    return [name for name, holds in names if holds]

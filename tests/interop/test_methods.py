"""Every method against its float64 definition and against mergekit."""

import numpy as np
import pytest
import torch
import yaml

from conftest import merge, tensors

F64 = torch.float64


def step(value: torch.Tensor, dtype) -> torch.Tensor:
    """Distance between neighbouring numbers of `dtype` at |value|, in float64."""
    bits = {torch.bfloat16: 7, torch.float16: 10, torch.float32: 23, torch.float64: 52}[dtype]
    least = {torch.bfloat16: -126, torch.float16: -14, torch.float32: -126, torch.float64: -1022}[dtype]
    exponent = torch.frexp(value.abs().clamp_min(2.0 ** -300)).exponent.to(F64) - 1
    return torch.pow(torch.tensor(2.0, dtype=F64), exponent.clamp_min(least) - bits)


def assert_within_bound(ours, reference, terms, leave_out=None):
    """The bound of docs/merge-methods.md: one output step, or 2^-21 (2^-50) of the sum of the terms' magnitudes."""
    relative = 2.0 ** (-21 if ours.dtype in (torch.bfloat16, torch.float16) else -50)
    bound = torch.maximum(step(reference, ours.dtype), relative * terms)
    wrong = (ours.to(F64) - reference).abs() > bound
    if leave_out is not None:
        assert leave_out.to(torch.float32).mean() < 0.01, "too many elements are left out to say anything"
        wrong &= ~leave_out
    assert not wrong.any(), f"{int(wrong.sum())} of {wrong.numel()} elements are out of bounds"


def linear(x, weights, normalize=True):
    terms = [w * v.to(F64) for w, v in zip(weights, x)]
    divisor = sum(weights) if normalize else 1.0
    return sum(terms) / divisor, sum(t.abs() for t in terms) / abs(divisor)


def slerp(x, t):
    a, b = (v.to(F64) for v in x)
    cosine = (a * b).sum() / (a.norm() * b.norm())
    if abs(cosine) > 0.9995:
        c = (1 - t, t)
    else:
        angle = torch.arccos(cosine)
        c = (torch.sin((1 - t) * angle) / torch.sin(angle), torch.sin(t * angle) / torch.sin(angle))
    return c[0] * a + c[1] * b, (c[0] * a).abs() + (c[1] * b).abs()


def task_arithmetic(x, base, weights, lam):
    b = base.to(F64)
    terms = [lam * w * (v.to(F64) - b) for w, v in zip(weights, x)]
    return b + sum(terms), b.abs() + sum(t.abs() for t in terms)


def ties(x, base, weights, density, arithmetic=torch.float32):
    """Returns the definition, the terms, and which elements hang on an equal magnitude at the threshold or an almost vanishing vote."""
    b = base.to(F64)
    votes, tied = [], torch.zeros(b.shape, dtype=torch.bool)
    for w, v in zip(weights, x):
        delta = (v.to(arithmetic) - base.to(arithmetic)).to(F64)
        k = max(1, int(density * delta.numel()))
        threshold = delta.abs().flatten().sort(descending=True).values[k - 1]
        equal = delta.abs() == threshold
        if int((delta.abs() >= threshold).sum()) > k:
            tied |= equal
        votes.append(w * torch.where(delta.abs() >= threshold, delta, 0))
    total = sum(votes)
    tied |= total.abs() <= 2.0 ** -21 * sum(v.abs() for v in votes)
    tied &= sum((v != 0).to(torch.int32) for v in votes) > 0
    sign = torch.where(total >= 0, 1.0, -1.0)
    mixed, divisor, magnitude = 0, 0, 0
    for w, v in zip(weights, votes):
        takes_part = torch.sign(v) == sign
        mixed = mixed + torch.where(takes_part, v, 0)
        magnitude = magnitude + torch.where(takes_part, v, 0).abs()
        divisor = divisor + takes_part.to(F64) * w
    divisor = torch.where(divisor == 0, 1.0, divisor)
    return b + mixed / divisor, b.abs() + magnitude / divisor.abs(), tied


def config(method, models, base=None, dtype="bfloat16", **parameters):
    c = {"merge_method": method, "models": models, "out_dtype": dtype, "parameters": parameters}
    if base:
        c["base_model"] = base
    return yaml.dump(c, sort_keys=False)


def entry(model, **parameters):
    return {"model": model, "parameters": parameters}


DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@pytest.mark.parametrize("out", DTYPES)
@pytest.mark.parametrize("normalize", [True, False])
def test_linear_is_its_definition(workshop, tmp_path, out, normalize):
    models = [workshop.model(seed=1), workshop.model(seed=2, dtype=torch.float16), workshop.model(seed=3, dtype=torch.float32)]
    weights = [0.3, 0.5, 0.7]
    ours = tensors(merge(tmp_path, config("linear", [entry(m, weight=w) for m, w in zip(models, weights)], dtype=out, normalize=normalize)))
    inputs = [tensors(m) for m in models]
    assert set(ours) == set(inputs[0])
    for name, value in ours.items():
        assert value.dtype == DTYPES[out]
        assert_within_bound(value, *linear([i[name] for i in inputs], weights, normalize))


@pytest.mark.parametrize("out", DTYPES)
@pytest.mark.parametrize("distance", [0.001, 0.02, 10.0])  # from almost parallel to almost orthogonal
def test_slerp_is_its_definition(workshop, tmp_path, out, distance):
    a = workshop.model(seed=1)
    b = workshop.model(seed=7 + int(distance * 1000), base=a, scale=distance)
    ours = tensors(merge(tmp_path, config("slerp", [{"model": a}, {"model": b}], base=a, dtype=out, t=0.35)))
    x, y = tensors(a), tensors(b)
    for name, value in ours.items():
        assert_within_bound(value, *slerp([x[name], y[name]], 0.35))


@pytest.mark.parametrize("out", DTYPES)
def test_task_arithmetic_is_its_definition(workshop, tmp_path, out):
    base = workshop.model(seed=1)
    tuned = [workshop.model(seed=s, base=base) for s in (11, 12)]
    ours = tensors(merge(tmp_path, config("task_arithmetic", [entry(m, weight=w) for m, w in zip(tuned, (0.6, 0.9))], base=base, dtype=out, **{"lambda": 0.8})))
    b, x = tensors(base), [tensors(m) for m in tuned]
    for name, value in ours.items():
        assert_within_bound(value, *task_arithmetic([i[name] for i in x], b[name], (0.6, 0.9), 0.8))


@pytest.mark.parametrize("out", DTYPES)
def test_ties_is_its_definition(workshop, tmp_path, out):
    base = workshop.model(seed=1, dtype=torch.float32)
    tuned = [workshop.model(seed=s, base=base, dtype=torch.float32) for s in (21, 22, 23)]
    weights = (0.5, 0.3, 0.4)
    ours = tensors(merge(tmp_path, config("ties", [entry(m, weight=w, density=0.4) for m, w in zip(tuned, weights)], base=base, dtype=out)))
    b, x = tensors(base), [tensors(m) for m in tuned]
    for name, value in ours.items():
        reference, terms, tied = ties([i[name] for i in x], b[name], weights, 0.4, F64 if out == "float32" else torch.float32)
        assert_within_bound(value, reference, terms, tied)


def test_passthrough_copies_and_scales(workshop, tmp_path):
    model = workshop.model(seed=1)
    original = tensors(model)
    copied = tensors(merge(tmp_path, yaml.dump({"merge_method": "passthrough", "models": [{"model": model}]}), name="copy"))
    assert set(copied) == set(original) and all(torch.equal(copied[n], original[n]) for n in original)
    scaled = tensors(merge(tmp_path, yaml.dump({"merge_method": "passthrough", "models": [entry(model, scale=[{"filter": "o_proj", "value": 0.0}, {"value": 1.0}])]}), name="scaled"))
    for name, value in scaled.items():
        assert torch.equal(value, torch.zeros_like(value) if "o_proj" in name else original[name])


def peer(tmp_path, text, dtype):
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    c = yaml.safe_load(text)
    c["dtype"] = dtype
    where = tmp_path / f"peer-{dtype}"
    run_merge(MergeConfiguration.model_validate(c), str(where), MergeOptions(copy_tokenizer=False, quiet=True))
    return tensors(where)


CASES = {
    "linear-equal": lambda m, base: config("linear", [entry(x, weight=1.0) for x in m[:3]]),
    "linear": lambda m, base: config("linear", [entry(x, weight=w) for x, w in zip(m, (0.35, 0.4, 0.25))]),
    "slerp": lambda m, base: config("slerp", [{"model": m[0]}, {"model": base}], base=base, t=0.3),
    "task_arithmetic": lambda m, base: config("task_arithmetic", [entry(x, weight=w) for x, w in zip(m[:2], (0.7, 0.4))], base=base, **{"lambda": 0.9}),
    "ties": lambda m, base: config("ties", [entry(x, weight=w, density=0.5) for x, w in zip(m[:2], (0.7, 0.4))], base=base),
    "ties-sum": lambda m, base: config("ties", [entry(x, weight=w, density=0.2) for x, w in zip(m, (0.7, 0.4, 0.1))], base=base, normalize=False, **{"lambda": 0.8}),
}


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_mergekit_bit_for_bit(workshop, tmp_path, case):
    """At least 99.99 % of the elements equal what mergekit gives at float32 or at float64, elements tied at a threshold left out."""
    base = workshop.model(seed=1)
    models = [workshop.model(seed=s, base=base) for s in (31, 32, 33)]
    text = CASES[case](models, base)
    ours = tensors(merge(tmp_path, text))
    best = 0.0
    counts = {}
    for dtype in ("float32", "float64"):
        theirs = peer(tmp_path, text, dtype)
        equal = total = 0
        for name, value in ours.items():
            keep = torch.ones(value.shape, dtype=torch.bool)
            if case.startswith("ties"):
                c = yaml.safe_load(text)["models"]
                b = tensors(base)[name]
                x = [tensors(e["model"])[name] for e in c]
                keep = ~ties(x, b, [e["parameters"]["weight"] for e in c], c[0]["parameters"]["density"])[2]
            equal += int((value == theirs[name])[keep].sum())
            total += int(keep.sum())
        counts[dtype] = (equal, total)
        best = max(best, equal / total)
    assert best >= 0.9999, counts

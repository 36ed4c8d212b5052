"""--stats against NumPy in float64, read by h5py; pages of files that h5py wrote, as docs/stats.md describes them."""

import html.parser
import re

import h5py
import numpy
import pytest
import torch
import yaml

import test_fp8
from conftest import merge, run, tensors
from mixture_families import make_mixture


def text(values):
    return [value.decode() for value in values]


def read(path):
    """{name: row}; every figure by its name in the file."""
    rows = {}
    with h5py.File(path, "r") as file:
        assert file.attrs["format"].decode() == "moeweld.stats/1"
        models = text(file["models"][()])
        columns = {key: column[()] for key, column in file["tensors"].items()}
        inputs = {key: column[()] for key, column in file["inputs"].items()}
        borders = [*columns["first_input"], len(inputs["model"])]
        for i, name in enumerate(text(columns["name"])):
            row = {key: column[i] for key, column in columns.items()}
            row["inputs"] = [{key: column[k] for key, column in inputs.items()} for k in range(borders[i], borders[i + 1])]
            row["models"] = [models[value["model"]] for value in row["inputs"]]
            assert name not in rows
            rows[name] = row
    return rows


def near(found, expected):
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12, nan_ok=True), (found, expected)


def cosine(a, b):
    norms = numpy.linalg.norm(a) * numpy.linalg.norm(b)
    return a @ b / norms if norms else numpy.nan


def compare(row, inputs, output, reference, has_base):
    """By the words of docs/stats.md."""
    inputs = [numpy.asarray(x, dtype=numpy.float64).ravel() for x in inputs]
    output = numpy.asarray(output, dtype=numpy.float64).ravel()
    other = inputs[reference]
    assert row["reference"] == reference and row["has_base"] == has_base and row["measured"] == 1
    assert row["left_out"] == 0 and len(row["inputs"]) == len(inputs)
    for value, x in [*zip(row["inputs"], inputs), (row, output)]:
        near(value["norm"], numpy.sqrt((x * x).sum()))
        near(value["max_absolute"], numpy.abs(x).max())
        near(value["difference_norm"], numpy.sqrt(((x - other) ** 2).sum()))
        near(value["cosine"], cosine(x, other))
        assert value["non_finite"] == 0
    base = other if has_base else numpy.zeros_like(other)
    vectors = [x - base for i, x in enumerate(inputs) if not (has_base and i == reference)]
    conflicts = (numpy.max(vectors, axis=0) > 0) & (numpy.min(vectors, axis=0) < 0)
    near(row["sign_conflicts"], conflicts.mean() if len(vectors) > 1 else numpy.nan)
    near(row["density_kept"], (output != base).mean())


def values(directory):
    return {name: tensor.double().numpy() for name, tensor in tensors(directory).items()}


def test_linear_ties_and_slerp_are_what_numpy_says(workshop, tmp_path):
    base = workshop.model(seed=1)
    models = [workshop.model(seed=seed, base=base) for seed in (2, 3, 4)]
    ties = {"merge_method": "ties", "base_model": base, "parameters": {"density": 0.4, "weight": 0.5}, "models": [{"model": m} for m in models]}
    cases = {
        "linear": ({"merge_method": "linear", "dtype": "float32",
                    "models": [{"model": m, "parameters": {"weight": w}} for m, w in zip(models, (1, 2, 3))]}, False),
        "ties": (ties, True),
        "slerp": ({"merge_method": "slerp", "base_model": base, "parameters": {"t": 0.4}, "models": [{"model": base}, {"model": models[0]}]}, True),
    }
    for name, (config, has_base) in cases.items():
        out = merge(tmp_path, yaml.dump(config), "--stats", tmp_path / f"{name}.h5", name=name, ranks=2)
        rows, outputs = read(tmp_path / f"{name}.h5"), values(out)
        assert set(rows) == set(outputs)
        sources = {model: values(model) for model in {m for row in rows.values() for m in row["models"]}}
        for tensor, row in rows.items():
            if has_base:
                assert row["models"][row["reference"]] == base
            else:
                assert row["models"] == models
            compare(row, [sources[model][tensor] for model in row["models"]], outputs[tensor], row["reference"], has_base)
            assert text([row["method"]]) == [name]


def test_a_mixtral_assembly_has_each_expert_by_itself(workshop, tmp_path):
    models = [workshop.model(seed=seed) for seed in (5, 6, 7)]
    config = {"base_model": models[0], "gate_mode": "random", "dtype": "float32",
              "experts": [{"source_model": m, "positive_prompts": []} for m in models[1:]]}
    out = merge(tmp_path, yaml.dump(config), "--stats", tmp_path / "moe.h5", name="moe", ranks=2)
    rows, outputs = read(tmp_path / "moe.h5"), values(out)
    assert set(rows) == set(outputs)
    sources = [values(model) for model in models]
    place = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
    seen = 0
    for name, row in rows.items():
        expert = re.fullmatch(r"model\.layers\.(\d+)\.block_sparse_moe\.experts\.(\d+)\.(w[123])\.weight", name)
        if expert:
            layer, number = int(expert[1]), int(expert[2])
            assert (row["layer"], row["expert"]) == (layer, number)
            assert row["pattern"].decode() == f"model.layers.{{layer}}.block_sparse_moe.experts.{{expert}}.{expert[3]}.weight"
            assert row["models"] == [models[1 + number]]
            compare(row, [sources[1 + number][f"model.layers.{layer}.mlp.{place[expert[3]]}.weight"]], outputs[name], 0, False)
            seen += 1
        elif ".gate." in name:
            assert row["inputs"] == [] and row["reference"] == -1 and row["method"].decode() == "random"
            near(row["norm"], numpy.linalg.norm(outputs[name]))
            assert numpy.isnan(row["cosine"])
        else:
            compare(row, [sources[0][name]], outputs[name], 0, False)
    assert seen == 4 * 2 * 3


def test_block_scaled_fp8_is_looked_at_as_the_values_it_stands_for(tmp_path):
    plain = make_mixture(tmp_path, "deepseek_v3", 1, **test_fp8.SHAPES)
    a, b = test_fp8.quantise_model(plain, tmp_path / "a-fp8"), make_mixture(tmp_path, "deepseek_v3", 2, base=plain, **test_fp8.SHAPES)
    config = test_fp8.config_of("linear", a, b, out_dtype="fp8_block")
    for ranks in (1, 3):
        out = merge(tmp_path, config, "--stats", tmp_path / f"{ranks}.h5", name=f"out-{ranks}", ranks=ranks)
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "3.h5").read_bytes()
    rows = read(tmp_path / "1.h5")
    sources, outputs = [test_fp8.values(model) for model in (a, b)], test_fp8.values(out)
    assert set(rows) == set(outputs)
    for name, row in rows.items():
        compare(row, [source[name].numpy() for source in sources], outputs[name].numpy(), 0, False)
    assert "F8_E4M3" in {row["dtype"].decode() for row in rows.values()}


def test_not_a_number_is_left_out_and_counted(workshop, tmp_path):
    from safetensors.torch import load_file, save_file

    base, a = workshop.model(seed=1), tmp_path / "a"
    run("convert", workshop.model(seed=2), a, "-q")
    broken = load_file(a / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    broken[name][3, 5:8] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    save_file(broken, a / "model.safetensors", metadata={"format": "pt"})
    config = {"merge_method": "linear", "models": [{"model": m, "parameters": {"weight": 0.5}} for m in (base, str(a))]}
    (tmp_path / "c.yml").write_text(yaml.dump(config))
    run("merge", tmp_path / "c.yml", tmp_path / "out", "-q", "--stats", tmp_path / "s.h5")
    row = read(tmp_path / "s.h5")[name]
    assert row["left_out"] == 3 and row["inputs"][0]["non_finite"] == 0 and row["inputs"][1]["non_finite"] == 3 and row["non_finite"] == 3
    whole, output = values(base)[name].ravel(), values(tmp_path / "out")[name].ravel()
    keep = numpy.isfinite(output)
    near(row["inputs"][0]["norm"], numpy.linalg.norm(whole[keep]))
    near(row["norm"], numpy.linalg.norm(output[keep]))


class Reader(html.parser.HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(page)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        self.words.append(data)


def write(path, models, rows, num_inputs):
    """A file of the documented layout; rows are (output, name, pattern, layer, expert)."""
    generator = numpy.random.default_rng(1)
    count = len(rows)

    def strings(values):
        return numpy.array([value.encode() for value in values], dtype=f"S{max([1, *(len(v.encode()) for v in values)])}")

    def put_values(group, number):
        group["norm"] = generator.uniform(1, 2, number)
        group["max_absolute"] = generator.uniform(0, 1, number)
        group["cosine"] = generator.uniform(-1, 1, number)
        group["difference_norm"] = generator.uniform(0, 1, number)
        group["non_finite"] = numpy.zeros(number, dtype="<u8")

    def string_type(length):
        kind = h5py.h5t.C_S1.copy()
        kind.set_size(length)
        kind.set_cset(h5py.h5t.CSET_UTF8)
        kind.set_strpad(h5py.h5t.STR_NULLPAD)
        return kind

    with h5py.File(path, "w") as file:
        for key, value in (("format", "moeweld.stats/1"), ("moeweld_version", "0"), ("title", "<b>&\x01 a title</b>"), ("plan_digest", "00"),
                           ("seed", "0"), ("merge_config", "a: <script>alert(1)</script>\nb: 2\n")):
            file.attrs.create(key, numpy.bytes_(value.encode()), dtype=h5py.string_dtype("utf-8", len(value.encode())))
        file.attrs.create("resumed", 0, dtype="<i8")
        file["models"] = strings(models)
        table = file.create_group("tensors")
        for column, key in enumerate(("output", "name", "pattern")):
            table[key] = strings([row[column] for row in rows])
        table["layer"] = numpy.array([row[3] for row in rows], dtype="<i4")
        table["expert"] = numpy.array([row[4] for row in rows], dtype="<i4")
        table["method"], table["dtype"], table["shape"] = strings(["ties"] * count), strings(["BF16"] * count), strings(["[64, 64]"] * count)
        table["measured"] = numpy.ones(count, dtype="<i4")
        table["has_base"] = numpy.full(count, num_inputs > 0, dtype="<i4")
        table["reference"] = numpy.full(count, 0 if num_inputs else -1, dtype="<i4")
        table["sign_conflicts"], table["density_kept"] = generator.uniform(0, 1, count), generator.uniform(0, 1, count)
        table["left_out"] = numpy.zeros(count, dtype="<u8")
        table["first_input"] = numpy.arange(count, dtype="<u8") * num_inputs
        put_values(table, count)
        inputs = file.create_group("inputs")
        inputs["model"] = numpy.tile(numpy.arange(num_inputs, dtype="<i4"), count)
        put_values(inputs, count * num_inputs)


def draw(tmp_path, name):
    run("report", tmp_path / f"{name}.h5")
    page = (tmp_path / f"{name}.html").read_text()
    reader = Reader(page)
    assert "script" not in [tag for tag, _ in reader.tags] and "<script>" not in page
    for tag, attributes in reader.tags:
        for key, value in attributes.items():
            if key in ("src", "href"):
                assert value.startswith(("#", "data:image/png;base64,")), (tag, value)
    return page, reader


def test_pages_of_large_and_of_odd_files(tmp_path):
    layer = "model.layers.%d."
    rows = [("", f"model.layers.{n}.mlp.experts.{e}.{role}.weight", "model.layers.{layer}.mlp.experts.{expert}.%s.weight" % role, n, e)
            for n in range(61) for e in range(256) for role in ("gate_proj", "up_proj", "down_proj")]
    rows += [("", layer % n + "self_attn.q_proj.weight", "model.layers.{layer}.self_attn.q_proj.weight", n, -1) for n in range(61)]
    write(tmp_path / "large.h5", ["base", "a", "b"], rows, 3)
    page, reader = draw(tmp_path, "large")
    assert len(page) < 4_000_000
    images = [attributes for tag, attributes in reader.tags if tag == "image"]
    assert len(images) == 6 * 3  # a picture for each figure and role of experts
    assert "mlp.experts.up_proj, each of 256 experts" in page and "&lt;b&gt;" in page
    # One layer, one tensor, a name without end, no input.
    name = "encoder.layers.0." + "very_long_" * 40 + "name<&\">.weight"
    write(tmp_path / "small.h5", ["m" * 500], [("", name, name.replace(".0.", ".{layer}."), 0, -1)], 0)
    page, reader = draw(tmp_path, "small")
    assert "very_long_name&lt;&amp;&quot;&gt;" in page and "No tensor has this figure." in page
    # Nothing that has a layer, and nothing at all.
    write(tmp_path / "flat.h5", ["a", "b"], [("", "weight", "weight", -1, -1)], 2)
    page, _ = draw(tmp_path, "flat")
    assert "Outside of layers" in page
    write(tmp_path / "nothing.h5", ["a"], [], 1)
    draw(tmp_path, "nothing")

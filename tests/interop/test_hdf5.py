"""HDF5 checkpoints and h5py: what each writes the other reads."""

import json

import h5py
import numpy
import torch
import yaml

from conftest import merge, run, tensors


def linear(a, b):
    return yaml.dump({"merge_method": "linear", "models": [{"model": a, "parameters": {"weight": 0.5}}, {"model": b, "parameters": {"weight": 0.5}}]})


def test_h5py_reads_what_moeweld_writes(workshop, tmp_path):
    config = linear(workshop.model(seed=1), workshop.model(seed=2))
    expected = tensors(merge(tmp_path, config, name="plain"))
    out = merge(tmp_path, config, "--format", "hdf5", name="hdf5", ranks=2)
    with h5py.File(out / "model.h5", "r") as file:
        assert set(file) == set(expected)
        assert file.attrs["format"].decode() == "moeweld.hdf5/1"
        assert file.attrs["merge_config"].decode() == config
        assert json.loads(file.attrs["config_json"])["architectures"] == ["LlamaForCausalLM"]
        for name, tensor in expected.items():
            dataset = file[name]
            assert dataset.attrs["dtype"].decode() == "BF16" and dataset.dtype == numpy.float32 and dataset.chunks is None
            assert torch.equal(torch.from_numpy(dataset[()]), tensor.float()), name


def test_moeweld_reads_what_h5py_writes(workshop, tmp_path):
    source = workshop.model(seed=3, dtype=torch.float32)
    expected = tensors(source)
    (tmp_path / "h").mkdir()
    (tmp_path / "h" / "config.json").write_bytes(open(source + "/config.json", "rb").read())
    with h5py.File(tmp_path / "h" / "model.h5", "w") as file:
        for name, tensor in expected.items():
            file.create_dataset(name, data=tensor.numpy())
    run("convert", tmp_path / "h", tmp_path / "back", "-q", ranks=2)
    found = tensors(tmp_path / "back")
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_float16_and_integers_are_numpy_s(workshop, tmp_path):
    source = workshop.model(seed=4, dtype=torch.float16)
    run("convert", source, tmp_path / "h", "--format", "hdf5", "-q")
    with h5py.File(tmp_path / "h" / "model.h5", "r") as file:
        for name, tensor in tensors(source).items():
            assert file[name].dtype == numpy.float16
            assert numpy.array_equal(file[name][()], tensor.numpy()), name

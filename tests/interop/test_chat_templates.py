"""Named chat templates render what mergekit's templates of these names render."""

import json
from pathlib import Path

import mergekit
import pytest
from transformers.utils.chat_template_utils import _compile_jinja_template

from conftest import merge

THEIRS = Path(mergekit.__file__).parent / "_data" / "chat_templates"
USER, ANSWER = {"role": "user", "content": " hi \nthere "}, {"role": "assistant", "content": " yes"}
SYSTEM, CONTEXT = {"role": "system", "content": "Be nice. "}, {"role": "user_context", "content": "some text"}
CONVERSATIONS = [[USER], [SYSTEM, USER], [USER, ANSWER], [SYSTEM, USER, ANSWER, USER], [USER, ANSWER, USER, ANSWER], [USER, CONTEXT], [ANSWER, USER], [USER, USER]]


def render(template, conversation, add_generation_prompt):
    """The text, or the kind of error: mistral's refuses roles that do not take turns."""
    try:
        return _compile_jinja_template(template).render(messages=conversation, add_generation_prompt=add_generation_prompt, bos_token="<s>", eos_token="</s>")
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("name", ["alpaca", "chatml", "exaone", "llama3", "mistral"])
def test_a_named_template_renders_what_mergekits_renders(workshop, tmp_path, name):
    model = Path(workshop.model(seed=1))
    tokenizer = json.dumps({"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "added_tokens": []})
    (tmp_path / "model").mkdir()
    for file in model.iterdir():
        (tmp_path / "model" / file.name).symlink_to(file)
    (tmp_path / "model" / "tokenizer.json").write_text(tokenizer)
    (tmp_path / "model" / "tokenizer_config.json").write_text("{}")
    out = merge(tmp_path, f"merge_method: passthrough\nmodels: [{{model: {tmp_path / 'model'}}}]\nchat_template: {name}\n")
    ours = (out / "chat_template.jinja").read_text()
    theirs = (THEIRS / f"{name}.jinja").read_text()
    if name == "exaone":  # its indentation would come out with the text; EXAONE's own template is one line
        theirs = "".join(line.strip() for line in theirs.splitlines())
    for conversation in CONVERSATIONS:
        for prompt in (False, True):
            expected = render(theirs, conversation, prompt)
            if name == "alpaca" and prompt and conversation[-1]["role"] != "assistant":  # theirs joins the prompt to the line before it
                expected = expected.removesuffix("### Response:\n") + "\n\n### Response:\n"
            assert render(ours, conversation, prompt) == expected, (conversation, prompt)

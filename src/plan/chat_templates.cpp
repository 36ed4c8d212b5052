#include "plan/chat_templates.h"

#include <array>

namespace moeweld::plan {

namespace {

struct NamedTemplate {
  std::string_view name;
  std::string_view text;
};

// What they render is compared with what mergekit's templates of these names render (tests/interop/test_chat_templates.py). Jinja's options
// are those of transformers: trim_blocks and lstrip_blocks.
constexpr std::array<NamedTemplate, 5> kTemplates = {{
    {"chatml",
     "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"},
    {"llama3",
     "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
     "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>\\n' }}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"},
    {"alpaca",
     "{% set ns = namespace(system='') %}"
     "{% for message in messages %}{% if message['role'] == 'system' %}{% set ns.system = message['content'] | trim %}{% endif %}{% endfor "
     "%}"
     "{{ ns.system + '\\n\\n' }}"
     "{% for message in messages %}{% if message['role'] in ['user', 'user_context', 'assistant'] %}"
     "{{ '### ' + {'user': 'Instruction', 'user_context': 'Input', 'assistant': 'Response'}[message['role']] + ':\\n' + "
     "message['content'] | trim }}{% if not loop.last %}{{ '\\n\\n' }}{% endif %}{% endif %}{% endfor %}"
     "{% if add_generation_prompt and messages[-1]['role'] != 'assistant' %}{{ '\\n\\n### Response:\\n' }}{% endif %}"},
    {"mistral",
     "{% set ns = namespace(system='', turn=0) %}{{ bos_token }}{% for message in messages %}"
     "{% if loop.first and message['role'] == 'system' %}{% set ns.system = message['content'] + '\\n\\n' %}{% else %}"
     "{% if message['role'] not in ['user', 'assistant'] %}"
     "{{ raise_exception('There are only user and assistant after the first system message') }}"
     "{% elif (message['role'] == 'user') != (ns.turn % 2 == 0) %}"
     "{{ raise_exception('After an optional system message user and assistant must take turns') }}"
     "{% elif message['role'] == 'user' %}"
     "{{ ' [INST] ' + (ns.system if ns.turn == 0 else '') + message['content'] + ' [/INST]' }}"
     "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% set ns.turn = ns.turn + 1 %}{% endif %}{% endfor %}"},
    {"exaone",
     "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}{{ '[|system|][|endofturn|]\\n' }}{% endif %}"
     "{{ '[|' + message['role'] + '|]' + message['content'] }}"
     "{{ '\\n' if message['role'] == 'user' else '[|endofturn|]\\n' }}{% endfor %}"
     "{% if add_generation_prompt %}{{ '[|assistant|]' }}{% endif %}"},
}};

}  // namespace

std::optional<std::string> named_chat_template(std::string_view name) {
  for (const NamedTemplate& entry : kTemplates) {
    if (entry.name == name) return std::string(entry.text);
  }
  return std::nullopt;
}

std::string chat_template_names() {
  std::string result;
  for (const NamedTemplate& entry : kTemplates) result += (result.empty() ? "" : ", ") + std::string(entry.name);
  return result;
}

}  // namespace moeweld::plan

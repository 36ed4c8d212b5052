#include "plan/chat_templates.h"

#include <array>

namespace moeweld::plan {

namespace {

struct NamedTemplate {
  std::string_view name;
  std::string_view text;
};

constexpr std::array<NamedTemplate, 4> kTemplates = {{
    {"chatml",
     "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"},
    {"llama3",
     "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + "
     "message['content'] | trim + '<|eot_id|>' }}"
     "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"},
    {"alpaca",
     "{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}{% elif message['role'] == "
     "'user' %}"
     "{{ '### Instruction:\\n' + message['content'] + '\\n\\n' }}{% else %}{{ '### Response:\\n' + message['content'] + eos_token + "
     "'\\n\\n' }}{% endif %}{% endfor %}"
     "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"},
    {"mistral",
     "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}{{ ' ' + message['content'] | trim + eos_token "
     "}}{% else %}"
     "{{ '[INST] ' + message['content'] | trim + ' [/INST]' }}{% endif %}{% endfor %}"},
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

#!/usr/bin/env python3
"""Tools whose keys are in no sorted order reach a chat template in that order: the prompt of a request
is the one that transformers' apply_chat_template makes of the same messages and tools.
    tool_order_test.py PATH_OF_prompt_export"""

import copy
import json
import subprocess
import sys
import tempfile

try:
    from transformers.utils.chat_template_utils import render_jinja_template
except ImportError:
    print("SLUICE_SKIP: no transformers; run scripts/setup test")
    sys.exit(77)

# Shows tools and arguments as templates of real models do: whole, indented, and key by key.
TEMPLATE = """{%- for tool in tools %}{{ tool | tojson }}
{{ tool.function.parameters | tojson(indent=2) }}
{% for name, schema in tool.function.parameters.properties.items() %}{{ name }}: {{ schema }};
{% endfor %}{% endfor %}
{%- for message in messages %}<{{ message.role }}>{{ message.content }}
{%- for call in message.tool_calls or [] %}{{ call.function.name }}{{ call.function.arguments | tojson }}
{%- for key, value in call.function.arguments.items() %} {{ key }}={{ value }}{% endfor %}
{%- endfor %}
{% endfor %}{{ extra | tojson }}
{%- if add_generation_prompt %}<assistant>{% endif %}"""

TOOLS = [{"type": "function", "function": {
    "name": "weather", "description": "Tells the weather <of a town>.", "parameters": {
        "type": "object", "required": ["town", "days"], "properties": {
            "town": {"type": "string", "description": "z before a"},
            "days": {"type": "integer", "minimum": 1, "maximum": 10},
            "a": {"enum": ["x", 2.5, None, True], "default": "x"}},
        "additionalProperties": False}}},
         {"function": {"parameters": {"properties": {"b": {}, "a": {"type": "null"}}, "type": "object"},
                       "name": "now"}, "type": "function"}]
ARGUMENTS = {"town": "Bonn", "days": 3, "a": {"z": 1, "b": [{"y": 1, "c": 2}]}}
EXTRA = {"z": 1, "a": 2}


def messages(arguments):
    return [{"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "", "tool_calls": [
                {"type": "function", "function": {"name": "weather", "arguments": arguments}}]},
            {"role": "tool", "content": "sunny"}]


def main():
    expected = render_jinja_template([messages(ARGUMENTS)], tools=copy.deepcopy(TOOLS),
                                     chat_template=TEMPLATE, add_generation_prompt=True,
                                     extra=EXTRA)[0][0]
    with tempfile.NamedTemporaryFile("w", suffix=".jinja") as file:
        file.write(TEMPLATE)
        file.flush()
        # OpenAI's clients send arguments as a text, others as an object.
        for arguments in (json.dumps(ARGUMENTS), ARGUMENTS):
            body = {"messages": messages(arguments), "tools": TOOLS,
                    "chat_template_kwargs": {"extra": EXTRA}}
            result = subprocess.run([sys.argv[1], file.name], input=json.dumps(body),
                                    capture_output=True, text=True, check=True)
            assert result.stdout == expected, f"\n{result.stdout}\nis not\n{expected}"
    assert expected.index('"town"') < expected.index('"days"') < expected.index('"a"')


if __name__ == "__main__":
    main()

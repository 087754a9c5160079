"""A model that says what a test wants: its weights name each token's successor, and its chat template ends
the prompt with a mark that begins one of several replies. Everything else about it is real: tokens, template,
tool calls, sampling.

    write_scripted(folder, [Reply("'time' in last", "It is late."), …])

`when` is a Jinja expression over `last`, the last message's content, and `messages`; the first that holds
decides, and without any the reply is NOTHING.

Where a server gets a share of its model's bytes (server.py's SHARE), the model has layers enough that this share
holds what a server needs beside weights; they add nothing to what it says.
"""

import dataclasses
import json
import os
import struct

import numpy as np
import support
from server import SHARE

NOTHING = "I have nothing to say."
PIECE_CHARS = 12
HIDDEN = 1024  # a dimension for each token
SIZES = (dict(num_hidden_layers=3, intermediate_size=16384, num_attention_heads=16, num_key_value_heads=1)
         if SHARE else dict(num_hidden_layers=1, intermediate_size=64))
tool = support.load_tool("make_checkpoint")


@dataclasses.dataclass
class Reply:
    when: str
    text: str
    for_ever: bool = False  # begins again at its end
    whole: bool = False     # one token, as a choice between words takes it


def call(name, **arguments):
    """A tool call in the form of the template that write_scripted() writes with tools."""
    text = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{text}\n</tool_call>"


def write_scripted(folder, replies, tools=True):
    """tools: whether the template knows them."""
    replies = [*replies, Reply("true", NOTHING)]
    folder.mkdir(parents=True)
    vocabulary = {text: index for index, text in enumerate([*tool.byte_alphabet(), "<s>", "</s>"])}
    successors = {}
    for number, reply in enumerate(replies):
        vocabulary[mark(number)] = len(vocabulary)
        tokens = [vocabulary[mark(number)]]
        for piece in pieces(reply, vocabulary):
            tokens.append(vocabulary.setdefault(piece, len(vocabulary)))
        tokens.append(tokens[1] if reply.for_ever else vocabulary["</s>"])
        successors.update(zip(tokens, tokens[1:]))
    assert len(vocabulary) <= HIDDEN, "replies are too long for this model"
    write_weights(folder, len(vocabulary), successors)
    write_tokenizer(folder, vocabulary, len(replies))
    (folder / "chat_template.jinja").write_text(template(replies, tools))
    return folder


def mark(number):
    return f"<|reply-{number}|>"


def pieces(reply, vocabulary):
    """The reply in tokens that occur nowhere else, each in the alphabet of bytes."""
    letters = tool.byte_alphabet()
    text = "".join(letters[byte] for byte in reply.text.encode())
    size = len(text) if reply.whole else PIECE_CHARS
    found = []
    while text:
        end = size
        while (text[:end] in vocabulary or text[:end] in found) and end < len(text):
            end += 1
        if text[:end] in vocabulary or text[:end] in found:
            assert found, f"{reply.text!r} is said elsewhere"
            found[-1] += text
            break
        found.append(text[:end])
        text = text[end:]
    return found


def template(replies, tools):
    known = "{% if tools %}<tools>{{ tools | tojson }}</tools> call as <tool_call>{% endif %}" if tools else ""
    known_calls = "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}" if tools else ""
    choice = "".join(f"{{% {'elif' if number else 'if'} {reply.when} %}}{mark(number)}"
                     for number, reply in enumerate(replies))
    return (known + "{% for m in messages %}<{{ m.role }}>{{ m.content }}" + known_calls + "\n{% endfor %}"
            "{% set last = messages[-1].content %}"
            "{% if add_generation_prompt %}" + choice + "{% endif %}{% endif %}")


def write_weights(folder, vocabulary, successors):
    config = tool.make_config("llama", hidden_size=HIDDEN, vocab_size=vocabulary, max_position_embeddings=65536,
                              **SIZES)
    config.pop("tied", None)
    tensors = {name: np.zeros(shape, np.float32) for name, shape in tool.tensor_list(config)}
    for name, values in tensors.items():
        if name.endswith("norm.weight"):
            values[:] = 1
    np.fill_diagonal(tensors["model.embed_tokens.weight"], 1)
    for token, following in successors.items():
        tensors["lm_head.weight"][following, token] = 4
    header, offset = {}, 0
    for name, values in tensors.items():
        header[name] = dict(dtype="BF16", shape=list(values.shape),
                            data_offsets=[offset, offset + 2 * values.size])
        offset += 2 * values.size
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for values in tensors.values():
            if values.any():
                out.write((values.view(np.uint32) >> 16).astype(np.uint16).tobytes())
            else:  # a hole
                out.seek(2 * values.size, os.SEEK_CUR)
        out.truncate()
    tool.write_json(folder / "config.json", config)


def write_tokenizer(folder, vocabulary, marks):
    tool.write_tokenizer(folder)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"] = vocabulary
    for number in range(marks):
        tokenizer["added_tokens"].append(
            dict(tokenizer["added_tokens"][0], id=vocabulary[mark(number)], content=mark(number)))
    path.write_text(json.dumps(tokenizer))

#!/usr/bin/env python3
"""Templates rendered by us and by Jinja as transformers sets it up: `%` and methods that are named
without being called, in all places where an expression may stand. Where Jinja fails, so must we."""

import itertools
import json
import os
import random
import subprocess
import sys

from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

VARIABLES = {
    "s": "abc", "fmt": "%s-%s", "n": 7, "f": 2.5, "t": True, "z": 0, "none": None,
    "l": [1, 2, "x"], "d": {"a": 1, "b": [2]},
    # What JSON schemas look like: keys that are names of methods.
    "schema": {"type": "array", "items": {"type": "string"}, "values": [1], "get": "g", "pop": 1},
}

FORMATS = ["%s", "%d", "%i", "%5s|", "%-5s|", "%05d", "%+d", "% d", "%x", "%X", "%o", "%#x", "%e", "%f",
           "%.2f", "%8.3f|", "%g", "%c", "%r", "%%", "100%% %s", "%.2s", "%(a)s", "%(a)s %(b)s", "%(q)s",
           "%", "%q", "%5", "no field", "%s %s", "%*d", "%.*f", "\u00e9%s\U0001f600"]
VALUES = ["1", "-3", "2.5", "1e20", "'x'", "'it\\'s'", "true", "none", "[1, 2]", "[]", "{'a': 1}",
          "{'a': 1, 'b': 'c'}", "(1, 2)", "('x',)", "()", "(3, 5)", "(2, 1.5)", "d", "l", "undefined_one",
          "n", "('a', 'b')"]

EXPRESSIONS = [
    # precedence, and what stands around an operand
    "7 % 4", "-7 % 4", "7 % -4", "7.5 % 2", "-7.5 % 2", "true % 2", "n % 0", "n % none", "2 * 7 % 4", "7 % 4 * 2",
    "7 % 4 % 2", "100 // 7 % 4", "2 ** 3 % 5", "17 % 2 ** 3", "1 + 7 % 4", "7 % 4 + 1", "7 % 4 - 1",
    "'a' ~ 7 % 4 ~ 'b'", "7 % 4 == 3", "3 == 7 % 4", "7 % 4 in [3]", "not 4 % 2", "n % 2 and n % 3",
    "7 % 2 if n % 2 else 5 % 3", "[n % 2, n % 3]", "{'k': n % 3}", "{'k': n % 3}['k']", "l[n % 3]",
    "(n % 4)", "(n + 3) % 4", "n % (2 + 2)", "(n, 1)[n % 2]", "l[:n % 3]", "n % 4 | string", "'%s' % n | string",
    "'%s' % s | upper", "('%s' % s) | upper", "'%s' % (s | upper)", "'%s' % s.upper()", "'%s' % d.a", "'%s' % d['a']",
    "'%s, %s' % (s, n)", "fmt % (n, s)", "fmt % (s,)", "'%s' % l", "'%s' % (l,)", "'%s%%' % 50", "'%' % ()",
    "'%s' % '%s' % 3", "'%s' * 2 % (1, 2)", "'x' ~ '%s' % 1 ~ 'y'", "'%d' % 3.99", "'%d' % '3'", "'%s' % true",
    "'%(a)s' % d", "'%(a)s%(b)s' % d", "'%s' % undefined_one", "'%s' % none", "'%s' % 1e3", "'%s' % 0.1",
    "'}}' ~ '%}' ~ '%s' % '{{'", "\"it's %s\" % \"a \\\"b\\\"\"", "'%s' % (s if n else l)", "'%s' % -n",
    "'%s' % not_there.x", "[1, 2] % 2", "n % 's'", "n is odd", "n % 2 is odd", "n % 4 is divisibleby 3",
    "n is not none", "1.5e-3 % 1", "1_000 % 7", "f % 1", "n%4", "s%n", "'%s'%s", "n %4", "n% 4",
    "range(n % 4) | list", "'%s' % range(3) | list | length",
    # methods
    "d.items is callable", "d.items is defined", "d.items is mapping", "d.items is iterable",
    "d.items is sequence", "d.items is string", "d.items is none", "1 if d.items else 0", "not d.items",
    "d.nope is defined", "schema.items is mapping", "schema['items'] is mapping", "schema['items']",
    "schema['items'].type", "schema.items()|list|length", "schema['nope'] is defined", "d['items'] is callable",
    "d['items'] is mapping", "schema.get('get')", "schema.type", "schema.get is callable", "schema['get']",
    "schema.pop is defined", "schema['pop']", "schema.update is defined", "d.update is defined",
    "schema.values is sequence", "schema['values'] | first", "s.upper is callable", "s.upper()", "s.items is defined",
    "s.strip is defined", "s['strip'] is callable", "s.title().upper()", "l.index is callable",
    "l.append is defined", "l.count(1)", "l['count'] is callable", "l.items is defined", "(1, 2).index is callable",
    "(1, 2).append is defined", "n.items is defined", "none.items is defined", "undefined_one.items",
    "d.items | length", "d.items | list", "d.b.copy is callable", "d.b.copy()", "{'items': 1}.items is mapping",
    "[{'items': 1}][0]['items'] % 2", "d.copy().items is callable", "schema.keys() | list | length % 3",
    "'%s' % schema['items']", "-d.a % 3", "d.a.items is defined", "d . items is callable", "d ['items'] is callable",
    "d.items == d.items2", "d.items is not none and d.items is not string",
]

STATEMENTS = [
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k, v in d.items %}{{ k }}{% endfor %}",
    "{% for k in d.keys %}{{ k }}{% endfor %}", "{% for k, v in schema.items() %}{{ k }};{% endfor %}",
    "{% for k in schema.items %}{{ k }}{% endfor %}", "{% for k in schema['items'] %}{{ k }}{% endfor %}",
    "{% for c in s.upper %}{{ c }}{% endfor %}", "{% for i in range(5) if i % 2 %}{{ i }}{% endfor %}",
    "{% for i in range(3) if i % 2 recursive %}{{ i }}{% endfor %}",
    "{% for i in [[1], 2] recursive %}{{ loop(i) if i is iterable else i % 2 }}{% endfor %}",
    "{% for i in '%s' % s %}{{ i }}.{% endfor %}", "{%- for i in range(n % 4) -%} {{ loop.index % 2 }} {%- endfor -%}",
    "{% for i in l %}{{ loop.index0 % 2 == 0 }}{% if loop.index is odd %}o{% endif %}{% endfor %}",
    "{% set f = d.items %}{% for k, v in f() %}{{ k }}{% endfor %}", "{% set x = 7 % 4 %}{{ x }}",
    "{% set x = '%s' % s -%} {{ x }}", "{% set ns = namespace(items=3, values=[1]) %}{{ ns.items }}{{ ns.values | length }}",
    "{% set ns = namespace() %}{% set ns.items = 9 % 5 %}{{ ns.items }}{{ ns.keys is defined }}",
    "{% set a, b = 7 % 4, '%s' % 1 %}{{ a }}{{ b }}", "{% if schema.items %}yes{% endif %}",
    "{% if schema.items is mapping %}a{% elif n % 2 == 1 %}b{% else %}c{% endif %}",
    "{% macro m(a, b='%s' % 'q') %}{{ '%s/%s' % (a, b) }}{% endmacro %}{{ m(7 % 4) }}{{ m(1, b=9 % 5) }}",
    "{% set x %}{{ '%s' % 5 }}{% endset %}{{ x }}", "{% filter upper %}{{ '%s' % s }}{% endfilter %}",
    "{% raw %}{{ 7 % 4 }}{% endraw %}{# {{ '%s' % #}.", "{{- 7 % 4 -}} x {{ '%s' % 1 }}\n{%- if 7 % 4 %} y{% endif %}",
    "{% if '%' in s %}a{% else %}b{% endif %}", "100% {{ n }} %} {{ s }}", "{% set x = {'a': 7 % 4, 'items': 1} %}{{ x['items'] }}{{ x.items is callable }}",
    "{% call(x) m(1) %}{{ x % 2 }}{% endcall %}", "{% with x = 7 % 4 %}{{ x }}{% endwith %}",
]


def cases():
    for template in itertools.chain(STATEMENTS, ("{{ " + e + " }}" for e in EXPRESSIONS)):
        yield template
    for pattern, value in itertools.product(FORMATS, VALUES):
        yield "{{ " + json.dumps(pattern, ensure_ascii=False) + " % " + value + " }}"
    # Chains of operators at random, over numbers.
    seed = int(os.environ.get("SLUICE_TEST_SEED", 1))
    print(f"SLUICE_TEST_SEED={seed}")
    draw = random.Random(seed)
    for _ in range(300):
        text = str(draw.randint(1, 9))
        for _ in range(draw.randint(1, 6)):
            operand = draw.choice(["n", "3", "5", "(2 + n)", "l[0]", "-2", "d.a", "7 % 4"])
            text += draw.choice([" % ", " * ", " + ", " - ", " // ", " % ", " ~ ", " == "]) + operand
        yield "{{ " + text + " }}"


def by_jinja(environment, template):
    try:
        return environment.from_string(template).render(**VARIABLES)
    except Exception as error:  # noqa: BLE001: whatever it is, we must fail too
        return error


def main():
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                extensions=[loopcontrols])
    templates = list(cases())
    texts = {name: json.dumps(value) for name, value in VARIABLES.items()}
    lines = "".join(json.dumps({"template": t, "variables": texts}) + "\n" for t in templates)
    run = subprocess.run([sys.argv[1]], input=lines, capture_output=True, text=True, check=True)
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(answers) == len(templates)
    wrong = failed = 0
    for template, answer in zip(templates, answers):
        expected = by_jinja(environment, template)
        if isinstance(expected, Exception):
            failed += 1
            good = "error" in answer
        else:
            good = answer.get("text") == expected
        if not good:
            wrong += 1
            print(f"{template!r}\n  Jinja: {expected!r}\n  ours:  {answer}")
    print(f"{len(templates)} templates, {failed} of which Jinja refuses; {wrong} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""The demo model served to OpenAI's own Python client. Importing this skips where either is missing."""

import unittest

from server import SHARE, serving
from support import demo_model, skip

try:
    import openai
except ImportError:
    skip("openai is not installed; run scripts/setup test")

MODEL = demo_model()
if MODEL is None:
    skip("the demo model is not there; run scripts/demo_model")
NAME = MODEL.stem
CONTEXT = 512 if SHARE else 1024  # a share has room for two sessions of that length (wide_demo.py)


class Served(unittest.TestCase):
    arguments = ("--context", CONTEXT, "--parallel", 2)  # of `sluice serve`

    @classmethod
    def setUpClass(cls):
        cls.scope = serving(MODEL, *cls.arguments)
        cls.server = cls.scope.__enter__()
        cls.client = openai.OpenAI(base_url=cls.server.url + "/v1", api_key="none", max_retries=0)

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        cls.scope.__exit__(None, None, None)

"""What is refused on which device, and what goes through vLLM's own kernels."""

import unittest
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

from transmla_vllm import attention
from transmla_vllm.features import Features

PLAIN = Features(scale=1.0)
WINDOW = replace(PLAIN, sliding_window=64, sliding_layers=frozenset({1}))
CAPPED = replace(PLAIN, softcap=50.0)
COMMON = (512, 64)


class Devices(unittest.TestCase):
    def on(self, cpu, has, layer=1, shape=COMMON, context=100):
        device = SimpleNamespace(is_cpu=lambda: cpu)
        with mock.patch.object(attention, "current_platform", device):
            return attention.special(has, layer, shape, context)

    def test_plain_models_run_in_kernels_of_vllm(self):
        for cpu in (True, False):
            self.assertEqual(self.on(cpu, PLAIN), {})
            # A layer without a window, and a window that hides nothing.
            self.assertEqual(self.on(cpu, WINDOW, layer=0), {})
            self.assertEqual(self.on(cpu, WINDOW, context=64), {})
        self.assertEqual(self.on(False, PLAIN, shape=(256, 64)), {})

    def test_cpus_do_the_rest_in_torch(self):
        found = self.on(True, WINDOW)
        self.assertEqual((found["window"], found["softcap"]), (64, None))
        self.assertEqual(self.on(True, CAPPED)["softcap"], 50.0)
        self.assertIn("attn_backend", self.on(True, PLAIN, shape=(28, 8)))

    def test_gpus_refuse_it_by_name(self):
        for has, shape, words in [
            (WINDOW, COMMON, ["layer 1", "64 tokens", "--max-model-len 64"]),
            (CAPPED, COMMON, ["soft-capped at 50.0"]),
            (PLAIN, (200, 64), ["200 + 64", "[320, 512, 576]"]),
        ]:
            with self.assertRaises(ValueError) as raised:
                self.on(False, has, shape=shape)
            for word in words:
                self.assertIn(word, str(raised.exception))


if __name__ == "__main__":
    unittest.main()

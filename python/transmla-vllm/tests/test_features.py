"""What is read of each family's config.json, and what is registered."""

import unittest

from transformers import AutoConfig, DeepseekV3Config

from transmla_vllm import STOCK, register
from transmla_vllm.features import features, rope_parameters

SHAPE = dict(
    hidden_size=48,
    num_hidden_layers=4,
    num_attention_heads=4,
    kv_lora_rank=24,
    qk_nope_head_dim=12,
    qk_rope_head_dim=4,
    v_head_dim=12,
    q_lora_rank=None,
)


def config(family, **keys):
    register()
    return AutoConfig.for_model(f"{family}mla", **SHAPE, **keys)


class Families(unittest.TestCase):
    def test_biases(self):
        for family, given, biases in [
            ("llama", False, (False, False, False)),
            ("llama", True, (True, True, True)),
            ("qwen2", True, (True, True, False)),
            ("mimo", True, (True, True, False)),
            ("mistral", True, (False, False, False)),
        ]:
            has = features(config(family, attention_bias=given))
            self.assertEqual((has.query_bias, has.latent_bias, has.output_bias), biases, family)

    def test_windows(self):
        has = features(config("mistral", sliding_window=8))
        self.assertEqual([has.window(layer) for layer in range(4)], [8] * 4)
        has = features(config("gemma2", sliding_window=8))
        self.assertEqual([has.window(layer) for layer in range(4)], [8, None, 8, None])
        has = features(config("qwen2", sliding_window=8, use_sliding_window=True, max_window_layers=3))
        self.assertEqual([has.window(layer) for layer in range(4)], [None, None, None, 8])
        has = features(config("qwen2", sliding_window=8, use_sliding_window=False))
        self.assertEqual(has.sliding_layers, frozenset())

    def test_what_families_add(self):
        keys = dict(query_pre_attn_scalar=64, attn_logit_softcapping=50.0, final_logit_softcapping=30.0)
        gemma = features(config("gemma2", **keys))
        self.assertEqual((gemma.scale, gemma.softcap, gemma.final_softcap, gemma.around), (0.125, 50.0, 30.0, True))
        self.assertEqual(features(config("mixtral", num_local_experts=6)).experts, 6)
        qwen = features(config("qwen3"))
        self.assertEqual((qwen.query_norm, qwen.scale, qwen.experts, qwen.around), (SHAPE["qk_nope_head_dim"], 0.25, None, False))
        keys = dict(num_local_experts=6, moe_intermediate_size=24, mlp_only_layers=[1])
        moe = features(config("qwen3_moe", **keys))
        self.assertEqual((moe.experts, moe.expert_width, moe.normalised_shares, moe.dense_layers), (6, 24, False, {1}))
        self.assertTrue(features(config("qwen3_moe", norm_topk_prob=True, **keys)).normalised_shares)
        for keys in (dict(latent_groups=2), dict(tied_latent=True)):
            with self.assertRaisesRegex(ValueError, "latent_groups"):
                features(config("llama", **keys))
        with self.assertRaisesRegex(ValueError, "shared_expert_gate"):
            features(config("qwen2_moe", shared_expert_intermediate_size=24, **keys))
        mixtral = features(config("mixtral", **keys))
        self.assertEqual((mixtral.expert_width, mixtral.normalised_shares, mixtral.dense_layers), (None, True, frozenset()))
        olmo = features(config("olmo2"))
        width = SHAPE["num_attention_heads"] * SHAPE["qk_nope_head_dim"]
        self.assertEqual((olmo.query_norm, olmo.around, olmo.after), (width, False, True))

    def test_multipliers(self):
        keys = dict(embedding_multiplier=12.0, residual_multiplier=0.22, logits_scaling=8.0, attention_multiplier=0.5)
        granite = features(config("granite", **keys))
        found = (granite.embedding_factor, granite.residual_factor, granite.logits_divisor, granite.scale, granite.around)
        self.assertEqual(found, (12.0, 0.22, 8.0, 0.25, False))
        llama = features(config("llama", **keys))
        self.assertEqual((llama.embedding_factor, llama.residual_factor, llama.logits_divisor), (1.0, 1.0, 1.0))

    def test_layers_without_positions(self):
        # Their rotary keys are zeros, which turn without a difference.
        smollm = config("smollm3", no_rope_layers=[1, 0, 1, 1], rope_parameters={"rope_type": "default", "rope_theta": 1e6})
        self.assertEqual([rope_parameters(smollm, layer)["rope_theta"] for layer in range(4)], [1e6] * 4)

    def test_rope(self):
        yarn = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "beta_fast": None}
        found = rope_parameters(config("qwen2", rope_parameters=yarn, max_position_embeddings=512))
        self.assertEqual(found["original_max_position_embeddings"], 512)
        self.assertNotIn("beta_fast", found)
        both = {"full_attention": {"rope_type": "default", "rope_theta": 1e6}, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}
        gemma = config("gemma3_text", rope_parameters=both, sliding_window=8, sliding_window_pattern=2)
        self.assertEqual([rope_parameters(gemma, layer)["rope_theta"] for layer in range(4)], [1e4, 1e6, 1e4, 1e6])

    def test_kept_key_norms_are_refused(self):
        with self.assertRaisesRegex(ValueError, "key_norm_heads"):
            features(config("qwen3", key_norm_heads=1))

    def test_stock_with_biases(self):
        for rank in (None, 16):
            has = features(DeepseekV3Config(**{**SHAPE, "q_lora_rank": rank}, attention_bias=True))
            self.assertEqual((has.query_bias, has.query_latent_bias), (False, rank is not None))
            self.assertTrue(has.latent_bias and has.output_bias and has.latent_norms)


class Registered(unittest.TestCase):
    def test_architectures(self):
        from vllm import ModelRegistry
        from vllm.transformers_utils.model_arch_config_convertor import MODEL_ARCH_CONFIG_CONVERTORS

        register()
        register()  # vLLM may call it again.
        names = ModelRegistry.get_supported_archs()
        for prefix in ("Llama", "Mistral", "Mixtral", "Qwen2", "Qwen3", "MiMo", "Gemma2", "Gemma3", "SmolLM3", "Granite", "Olmo2", "Phi3", "Qwen3Moe"):
            self.assertIn(f"{prefix}MLAForCausalLM", names)
            found = config({"Gemma3": "gemma3_text", "Qwen3Moe": "qwen3_moe"}.get(prefix, prefix.lower()))
            self.assertTrue(MODEL_ARCH_CONFIG_CONVERTORS[found.model_type](found, found).is_deepseek_mla())
        self.assertIn(STOCK, names)


if __name__ == "__main__":
    unittest.main()

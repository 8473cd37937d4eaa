"""Configuration of a model that transmla converted to multi-head latent attention.

The keys are those of the original family's config.json and DeepSeek's names for the latent attention. What a family
adds to the plain decoder follows from `model_type`, which is the original's with "mla" behind it.
"""

from transformers import PretrainedConfig

# What each family adds: which biases there are, which layers have a window, and what else differs.
FAMILIES = {
    "llama": dict(bias="key"),
    "mistral": dict(window="all"),
    "mixtral": dict(window="all", experts="block_sparse_moe"),
    "qwen2": dict(bias="qkv", window="switched"),
    "qwen3": dict(bias="key", window="switched", qk_norm="head"),
    "mimo": dict(bias="qkv", window="switched"),
    "gemma2": dict(bias="key", window="alternate", gemma=True),
    "gemma3_text": dict(bias="key", window="pattern", gemma=True, qk_norm="head"),
    # Layers without positions have rotary keys of zeros.
    "smollm3": dict(bias="key", window="switched"),
    "granite": dict(bias="key", multipliers=True),
    # Norms behind attention and MLP and none in front; those of queries and keys span all heads.
    "olmo2": dict(bias="key", norms="after", qk_norm="all"),
    # Its fused projections have been cut.
    "phi3": dict(window="all"),
    "qwen3_moe": dict(bias="key", window="switched", qk_norm="head", experts="mlp"),
    "qwen2_moe": dict(bias="qkv", window="switched", experts="mlp", shared_expert=True),
}


# What transformers calls layers without and with a window.
FULL, SLIDING = "full_attention", "sliding_attention"


class TransMLAConfig(PretrainedConfig):
    model_type = "transmla"
    keys_to_ignore_at_inference = ["past_key_values", "cache"]
    # What transformers itself asks for, where config.json has it not.
    use_cache = True
    max_position_embeddings = 2048
    rope_parameters = None

    # Later versions of transformers make the `__init__` of every subclass, and call this behind it.
    if hasattr(PretrainedConfig, "__post_init__"):

        def __post_init__(self, **kwargs):
            super().__post_init__(**kwargs)
            self.settle_windows()

    else:

        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.settle_windows()

    def settle_windows(self):
        """Says for each layer whether it has a window, in the words that caches and masks of transformers go by.

        They read `layer_types`, and without it take every `sliding_window` for one of all layers, switched on or not.
        """
        self.layer_types = [SLIDING if self.slides(layer) else FULL for layer in range(self.key("num_hidden_layers", 0))]
        if SLIDING not in self.layer_types:
            self.sliding_window = None

    @property
    def family(self):
        name = self.model_type.removesuffix("mla")
        if name not in FAMILIES:
            raise ValueError(f"model_type is {self.model_type!r}; expected one of {[f + 'mla' for f in FAMILIES]}")
        return FAMILIES[name]

    def key(self, name, default=None):
        """A key of config.json, with null read as absent."""
        value = getattr(self, name, None)
        return default if value is None else value

    @property
    def biases(self):
        """Whether queries and keys/values have biases, and whether the output has one."""
        rule = self.family.get("bias")
        by_key = bool(self.key("attention_bias", False))
        return by_key and rule is not None, by_key and rule == "key"

    def experts_of(self, layer):
        """Name of a layer's module of experts; nothing for a layer with one MLP."""
        module = self.family.get("experts")
        # Where experts have the place of an MLP, some layers may have one.
        return None if module == "mlp" and layer in self.key("mlp_only_layers", ()) else module

    def multiplier(self, name):
        """A factor of families that have it, otherwise 1."""
        return float(self.key(name, 1.0)) if self.family.get("multipliers") else 1.0

    @property
    def rope(self):
        """RoPE parameters of layers without a window, which in most families are those of all."""
        return self.rope_of(FULL)

    def rope_of(self, kind):
        """RoPE parameters of a kind of layer, wherever this version of transformers keeps them."""
        rope = dict(self.key("rope_parameters") or self.key("rope_scaling") or {})
        if FULL in rope or SLIDING in rope:
            rope = dict(rope.get(kind) or {})
        rope.setdefault("rope_type", rope.get("type", "default"))
        if rope.get("rope_theta") is None:
            rope["rope_theta"] = self.key("rope_theta", 10000.0)
        return rope

    def slides(self, layer):
        """Whether a layer has a window."""
        rule = FAMILIES.get(self.model_type.removesuffix("mla"), {}).get("window")
        if rule is None or self.key("sliding_window") is None:
            return False
        if rule == "switched" and not self.key("use_sliding_window", False):
            return False
        types = self.key("layer_types")
        if types is not None:
            return types[layer] == SLIDING
        if rule == "alternate":
            return layer % 2 == 0
        if rule == "pattern":
            return (layer + 1) % self.key("sliding_window_pattern", 6) != 0
        return rule == "all" or layer >= self.key("max_window_layers", self.num_hidden_layers)


# The names that `auto_map` has.


class LlamaMLAConfig(TransMLAConfig):
    model_type = "llamamla"


class MistralMLAConfig(TransMLAConfig):
    model_type = "mistralmla"


class MixtralMLAConfig(TransMLAConfig):
    model_type = "mixtralmla"


class Qwen2MLAConfig(TransMLAConfig):
    model_type = "qwen2mla"


class Qwen3MLAConfig(TransMLAConfig):
    model_type = "qwen3mla"


class MiMoMLAConfig(TransMLAConfig):
    model_type = "mimomla"


class Gemma2MLAConfig(TransMLAConfig):
    model_type = "gemma2mla"


class Gemma3MLAConfig(TransMLAConfig):
    model_type = "gemma3_textmla"


class SmolLM3MLAConfig(TransMLAConfig):
    model_type = "smollm3mla"


class GraniteMLAConfig(TransMLAConfig):
    model_type = "granitemla"


class Olmo2MLAConfig(TransMLAConfig):
    model_type = "olmo2mla"


class Phi3MLAConfig(TransMLAConfig):
    model_type = "phi3mla"


class Qwen3MoeMLAConfig(TransMLAConfig):
    model_type = "qwen3_moemla"


class Qwen2MoeMLAConfig(TransMLAConfig):
    model_type = "qwen2_moemla"

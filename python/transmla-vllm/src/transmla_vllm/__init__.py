"""Models that transmla converted to multi-head latent attention, in vLLM.

vLLM calls `register` in each of its processes (entry point `vllm.general_plugins`); nothing else is to be imported.
"""

import logging

# The release whose classes this derives from. Others may have changed them.
VLLM = "0.32"

# A stock DeepSeek-V3 folder with biases or a scaled RoPE, which vLLM's own class has not.
STOCK = "DeepseekV3TransformersForCausalLM"

MODEL = "transmla_vllm.model:TransMLAForCausalLM"


def register():
    """Adds the architectures that transmla writes to vLLM's and their configurations to transformers'."""
    import vllm
    from transformers import AutoConfig
    from vllm import ModelRegistry
    from vllm.transformers_utils.model_arch_config_convertor import (
        MODEL_ARCH_CONFIG_CONVERTORS,
        ModelArchConfigConvertorBase,
    )

    from . import configuration_transmla as configurations

    if not vllm.__version__.startswith(VLLM + "."):
        logging.getLogger("vllm.transmla").warning(
            "transmla-vllm is made for vLLM %s, this is %s: compare with `transmla logits` before you rely on it",
            VLLM,
            vllm.__version__,
        )

    class Convertor(ModelArchConfigConvertorBase):
        def is_deepseek_mla(self):
            return True

    for name, config in vars(configurations).items():
        if name.endswith("MLAConfig") and config is not configurations.TransMLAConfig:
            AutoConfig.register(config.model_type, config, exist_ok=True)
            MODEL_ARCH_CONFIG_CONVERTORS[config.model_type] = Convertor
            ModelRegistry.register_model(name.removesuffix("Config") + "ForCausalLM", MODEL)
    ModelRegistry.register_model(STOCK, MODEL)

"""Latent attention on CPUs for what vLLM's kernel there has not: windows, soft-caps, and widths other than 512 + 64.

In plain torch, request by request. vLLM's cache, its block tables and its splitting of batches into prompts and single
tokens stay as they are.
"""

import torch
from vllm.model_executor.layers.attention.mla_attention import MLACommonMetadata, MLACommonMetadataBuilder
from vllm.v1.attention.backend import MultipleOf
from vllm.v1.attention.backends.mla.cpu_mla import CPUMLABackend, CPUMLAImpl

# Queries of a prompt whose scores are held at once.
ROWS = 256


class AnyWidthMetadata(MLACommonMetadata):
    def __post_init__(self):
        """Takes every width; the common class takes those that some kernel of a GPU is made for."""


class AnyWidthMetadataBuilder(MLACommonMetadataBuilder[AnyWidthMetadata]):
    def __init__(self, kv_cache_spec, layer_names, vllm_config, device):
        super().__init__(kv_cache_spec, layer_names, vllm_config, device, AnyWidthMetadata)


class PlainMLABackend(CPUMLABackend):
    @staticmethod
    def get_name() -> str:
        return "CPU_MLA"

    @classmethod
    def get_supported_head_sizes(cls) -> list[int]:
        return []

    @staticmethod
    def get_supported_kernel_block_sizes(kv_cache_spec=None) -> list[int | MultipleOf]:
        return [MultipleOf(16)]

    @classmethod
    def supports_block_size(cls, block_size: int | None) -> bool:
        return block_size is None or block_size % 16 == 0

    @staticmethod
    def get_builder_cls():
        return AnyWidthMetadataBuilder

    @staticmethod
    def get_impl_cls():
        return PlainMLAImpl


class PlainMLAImpl(CPUMLAImpl):
    """`window` and `softcap` are arguments of `MLAAttention` that it hands through."""

    def __init__(self, *arguments, window: int | None = None, softcap: float | None = None, **named):
        super().__init__(*arguments, **named)
        self.window, self.softcap = window, softcap

    def first(self, position: int) -> int:
        """The first token that a query at this position sees."""
        return 0 if self.window is None else max(0, position + 1 - self.window)

    def shares(self, scores: torch.Tensor, hidden: torch.Tensor | None = None) -> torch.Tensor:
        """Softmax over keys of products of queries and keys, in fp32."""
        scores = scores.float() * self.scale
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        if hidden is not None:
            scores = scores.masked_fill(hidden, float("-inf"))
        return scores.softmax(-1)

    def forward_mqa(self, q, kv_c_and_k_pe_cache, attn_metadata, layer):
        """One token of each request against its cache: [requests, heads, latent], and no sum of exponentials."""
        decode = attn_metadata.decode
        q = torch.cat(q, dim=-1) if isinstance(q, tuple) else q
        out = q.new_zeros(q.shape[0], q.shape[1], self.kv_lora_rank)
        for request, length in enumerate(decode.seq_lens.tolist()):
            # Requests of a padded batch have no tokens.
            if length > 0:
                rows = cached(kv_c_and_k_pe_cache, decode.block_table[request], self.first(length - 1), length)
                shares = self.shares(q[request] @ rows.T)
                out[request] = (shares @ rows[:, : self.kv_lora_rank].float()).to(q.dtype)
        return out, None

    def forward_mha(
        self, q, kv_c_normed, k_pe, kv_c_and_k_pe_cache, attn_metadata, k_scale, output, output_scale=None
    ) -> None:
        """Prompts, or parts of them behind what is cached.

        Keys and values are made from the cached latents, which the new ones are among.
        """
        prefill = attn_metadata.prefill
        ends = prefill.query_start_loc.tolist()
        context = prefill.chunked_context
        before = [0] * (len(ends) - 1) if context is None else context.context_lens_list
        output = output.view(-1, self.num_heads, self.v_head_dim)
        for request, cached_before in enumerate(before):
            start, end = ends[request], ends[request + 1]
            first, length = self.first(cached_before), cached_before + end - start
            rows = cached(kv_c_and_k_pe_cache, prefill.block_table[request], first, length).to(q.dtype)
            latent, k_rope = rows.split((self.kv_lora_rank, self.qk_rope_head_dim), dim=-1)
            up = self.kv_b_proj(latent.contiguous())[0].unflatten(-1, (self.num_heads, -1))
            k_nope, values = up.split((self.qk_nope_head_dim, self.v_head_dim), dim=-1)
            keys = torch.cat((k_nope, k_rope[:, None].expand(-1, self.num_heads, -1)), dim=-1)
            # [heads, keys, ...]
            keys, values = keys.transpose(0, 1), values.transpose(0, 1).float()
            seen = torch.arange(first, length)
            for row in range(start, end, ROWS):
                queries = q[row : min(row + ROWS, end)].transpose(0, 1)
                at = cached_before + row - start + torch.arange(queries.shape[1])[:, None]
                hidden = seen > at
                if self.window is not None:
                    hidden |= seen <= at - self.window
                shares = self.shares(queries @ keys.transpose(1, 2), hidden)
                output[row : row + queries.shape[1]] = (shares @ values).transpose(0, 1).to(output.dtype)


def cached(cache: torch.Tensor, blocks: torch.Tensor, start: int, end: int) -> torch.Tensor:
    """Tokens `start..end` of a request, [tokens, width]; `cache` is [blocks, tokens of a block, width]."""
    size = cache.shape[1]
    first = start // size
    rows = cache[blocks[first : (end + size - 1) // size].long()].flatten(0, 1)
    return rows[start - first * size : end - first * size]

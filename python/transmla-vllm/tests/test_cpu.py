"""The attention on CPUs against a dense one: prompts in parts, single tokens, windows, soft-caps."""

import unittest
from types import SimpleNamespace

import torch
from vllm.v1.attention.backend import AttentionType

from transmla_vllm.cpu import ROWS, PlainMLAImpl

HEADS, RANK, ROPE, NOPE, VALUE, BLOCK = 3, 12, 4, 6, 5, 16
SCALE = 0.7


def implementation(up, window, softcap):
    def kv_b_proj(latent):
        return latent @ up.flatten(0, 1).T, None

    return PlainMLAImpl(
        num_heads=HEADS,
        head_size=RANK + ROPE,
        scale=SCALE,
        num_kv_heads=1,
        alibi_slopes=None,
        sliding_window=None,
        kv_cache_dtype="auto",
        logits_soft_cap=None,
        attn_type=AttentionType.DECODER,
        kv_sharing_target_layer_name=None,
        q_lora_rank=None,
        kv_lora_rank=RANK,
        qk_nope_head_dim=NOPE,
        qk_rope_head_dim=ROPE,
        qk_head_dim=NOPE + ROPE,
        v_head_dim=VALUE,
        kv_b_proj=kv_b_proj,
        window=window,
        softcap=softcap,
    )


def dense(q, rows, up, window, softcap):
    """[tokens, heads, value] of every token against itself and those before it."""
    latent, k_rope = rows.split((RANK, ROPE), dim=-1)
    both = torch.einsum("tr,hor->tho", latent, up)
    keys = torch.cat((both[..., :NOPE], k_rope[:, None].expand(-1, HEADS, -1)), dim=-1)
    scores = torch.einsum("qhd,khd->hqk", q, keys) * SCALE
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    distance = torch.arange(len(rows))[:, None] - torch.arange(len(rows))
    seen = (distance >= 0) & (distance < (window or len(rows)))
    shares = scores.masked_fill(~seen, float("-inf")).softmax(-1)
    return torch.einsum("hqk,khd->qhd", shares, both[..., NOPE:])


class Cpu(unittest.TestCase):
    def check(self, window, softcap, lengths):
        torch.manual_seed(1)
        up = torch.randn(HEADS, NOPE + VALUE, RANK)
        impl = implementation(up, window, softcap)
        total = max(lengths)
        order = torch.randperm(len(lengths) * (total // BLOCK + 1))
        tables = order.view(len(lengths), -1)
        cache = torch.full((len(order), BLOCK, RANK + ROPE), float("nan"))
        texts = [(torch.randn(length, HEADS, NOPE + ROPE), torch.randn(length, RANK + ROPE)) for length in lengths]
        for table, (_, rows) in zip(tables, texts):
            slots = table[torch.arange(len(rows)) // BLOCK] * BLOCK + torch.arange(len(rows)) % BLOCK
            impl.do_kv_cache_update(rows[:, :RANK], rows[:, None, RANK:], cache, slots, "auto", None)
        wanted = [dense(q, rows, up, window, softcap) for q, rows in texts]

        # All but the last token of each text, behind what a cache would have of it.
        for before in (0, 5):
            parts = [q[before:-1] for q, _ in texts]
            ends = torch.tensor([0, *(len(part) for part in parts)]).cumsum(0)
            context = SimpleNamespace(context_lens_list=[before] * len(texts)) if before else None
            prefill = SimpleNamespace(query_start_loc=ends, chunked_context=context, block_table=tables)
            output = torch.zeros(int(ends[-1]), HEADS * VALUE)
            impl.forward_mha(torch.cat(parts), None, None, cache, SimpleNamespace(prefill=prefill), None, output)
            expected = torch.cat([text[before:-1] for text in wanted])
            torch.testing.assert_close(output.view(-1, HEADS, VALUE), expected)

        # The last token of each, absorbed, and a row of padding.
        last = torch.stack([q[-1] for q, _ in texts] + [torch.zeros(HEADS, NOPE + ROPE)])
        absorbed = torch.einsum("bhd,hdr->bhr", last[..., :NOPE], up[:, :NOPE])
        decode = SimpleNamespace(seq_lens=torch.tensor([*lengths, 0]), block_table=torch.cat((tables, tables[:1])))
        mixed, _ = impl.forward_mqa((absorbed, last[..., NOPE:]), cache, SimpleNamespace(decode=decode), None)
        found = torch.einsum("bhr,hor->bho", mixed[:-1], up[:, NOPE:])
        torch.testing.assert_close(found, torch.stack([text[-1] for text in wanted]))

    def test_everything_is_seen(self):
        self.check(None, None, [40, 7])

    def test_windows(self):
        for window in (1, 6, 16, 33, 100):
            self.check(window, None, [40, 17])

    def test_soft_caps(self):
        self.check(None, 1.5, [20, 33])
        self.check(9, 1.5, [20, 33])

    def test_prompts_longer_than_a_block_of_queries(self):
        self.check(50, None, [2 * ROWS + 40])


if __name__ == "__main__":
    unittest.main()

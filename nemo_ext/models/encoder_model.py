"""An encoder on Megatron-Core: embedding, transformer block, and a head that predicts masked tokens.

Megatron's BertModel cannot be it (0.15.3): its embedding has no norm, its head one fixed activation, its rotary base is fixed.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from megatron.core.enums import ModelType
from megatron.core.models.common.embeddings.language_model_embedding import LanguageModelEmbedding
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
from megatron.core.models.common.language_module.language_module import LanguageModule
from megatron.core.tensor_parallel import ColumnParallelLinear, gather_from_sequence_parallel_region
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_block import TransformerBlock

from nemo_ext.layers.norm import Norm
from nemo_ext.layers.packed_attention import boundaries_of

IGNORED = -100  # the label of a position without loss, as everywhere in torch and transformers


class NormDropout(torch.nn.Module):
    """Norm of the embeddings, then dropout: in the place of Megatron's dropout, after the sequence was split over the ranks."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.norm = Norm(config, config.hidden_size, config.layernorm_epsilon, bias=config.has_norm_bias)
        self.dropout = torch.nn.Dropout(config.hidden_dropout)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Embeddings `[seq, batch, hidden]`, normalised."""
        return self.dropout(self.norm(embeddings))


class PredictionHead(MegatronModule):
    """Linear layer, activation and norm before the output layer. Every tensor parallel rank computes it whole.

    config: an EncoderConfig without sequence parallelism, since a head sees whole sequences.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config=config)
        self.dense = torch.nn.Linear(config.hidden_size, config.hidden_size, bias=config.has_head_bias, dtype=config.params_dtype)
        self.layer_norm = Norm(config, config.hidden_size, config.layernorm_epsilon, bias=config.has_norm_bias)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states `[..., hidden]`, transformed."""
        return self.layer_norm(self.config.head_activation(self.dense(hidden)))


class EncoderModel(LanguageModule):
    """This rank's part of an encoder; the output layer has the word embeddings as its weight, and a bias of its own.

    config: an EncoderConfig. The two flags say whether this pipeline stage has the embedding and the head.
    """

    def __init__(self, config: Any, pre_process: bool, post_process: bool, vp_stage: int | None = None) -> None:
        super().__init__(config=config)
        self.model_type = ModelType.encoder_or_decoder
        self.pre_process, self.post_process, self.vp_stage = pre_process, post_process, vp_stage
        self.share_embeddings_and_output_weights = True
        has_rotary = config.position_embedding_type == "rope"
        if pre_process:
            self.embedding = LanguageModelEmbedding(
                config,
                config.vocab_size,
                max_sequence_length=config.seq_length,
                position_embedding_type=config.position_embedding_type,
                num_tokentypes=config.token_types,
            )
            self.embedding.embedding_dropout = NormDropout(config)
        self.rotary_pos_emb: torch.nn.Module | None = None
        if has_rotary:
            self.rotary_pos_emb = RotaryEmbedding(
                config.kv_channels, 1.0, rotary_base=config.rotary_base, use_cpu_initialization=config.use_cpu_initialization
            )
        self.encoder = TransformerBlock(
            config, config.transformer_layer_spec(config, vp_stage), pre_process=pre_process, post_process=post_process, vp_stage=vp_stage
        )
        if post_process:
            self._build_head(config)
        if pre_process or post_process:
            self.setup_embeddings_and_output_layer()

    def _build_head(self, config: Any) -> None:
        whole_sequences = copy.copy(config)
        whole_sequences.sequence_parallel = False
        self.lm_head = PredictionHead(whole_sequences)
        self.output_layer = ColumnParallelLinear(
            config.hidden_size,
            config.vocab_size,
            config=whole_sequences,
            init_method=config.init_method,
            bias=True,
            gather_output=False,
            skip_weight_param_allocation=self.pre_process,
        )
        if config.carries_pooler:
            sizes = {"pooler": config.hidden_size, "next_sentence": 2}
            for name, size in sizes.items():
                layer = torch.nn.Linear(config.hidden_size, size, dtype=config.params_dtype)
                self.add_module(name, layer.requires_grad_(False))

    def set_input_tensor(self, input_tensor: Any) -> None:
        """Megatron's contract: what the pipeline stage before this one sent."""
        self.encoder.set_input_tensor(input_tensor[0] if isinstance(input_tensor, list) else input_tensor)

    def forward(
        self,
        input_ids: torch.Tensor | None,
        position_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        cu_seqlens: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Loss per token `[batch, seq]` fp32 if there are labels, else logits `[batch, seq, padded vocabulary / tp]`.

        input_ids, position_ids, labels `[batch, seq]` int64. A position whose label is `IGNORED` has loss 0, and no logits are
        computed for it. attention_mask: bool `[batch, seq]`, True for a real token; None if all are.
        token_type_ids: int64 `[batch, seq]`; None for type 0.
        cu_seqlens: int32 `[sequences + 1]`, the boundaries of sequences that are laid end to end in the one row of the batch. Then
        none sees another, each one's positions start at 0, what follows the last boundary is padding, and attention_mask is None.
        A stage before the last returns hidden states `[seq, batch, hidden]`. All stages need position_ids, attention_mask and
        cu_seqlens, the first input_ids and token_type_ids, the last labels.
        """
        hidden = self._embed(input_ids, position_ids, token_type_ids) if self.pre_process else None
        hidden = self.encoder(hidden, _mask(attention_mask, cu_seqlens), rotary_pos_emb=self._angles(position_ids))
        if not self.post_process:
            return hidden
        if self.config.sequence_parallel:
            hidden = gather_from_sequence_parallel_region(hidden, tensor_parallel_output_grad=False)
        if labels is None:
            return self._logits(hidden).transpose(0, 1).contiguous()
        return self._loss(hidden, labels)

    def _embed(self, input_ids: torch.Tensor | None, position_ids: torch.Tensor, token_type_ids: torch.Tensor | None) -> torch.Tensor:
        if self.config.token_types and token_type_ids is None:
            token_type_ids = torch.zeros_like(position_ids)
        return self.embedding(input_ids, position_ids, token_type_ids)

    def _angles(self, position_ids: torch.Tensor) -> torch.Tensor | None:
        """Rotary angles `[.., seq, batch, 1, head_size]`, as many dimensions before them as the rotary embedding has."""
        if self.rotary_pos_emb is None:
            return None
        angles = self.rotary_pos_emb(position_ids.size(1))  # no position is beyond the row's length
        return angles[..., position_ids.t(), 0, 0, :].unsqueeze(-2)

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        weight = self.shared_embedding_or_output_weight() if self.pre_process else None
        return self.output_layer(self.lm_head(hidden), weight=weight)[0]

    def _loss(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Loss `[batch, seq]`; head, logits and softmax are computed at the labelled positions only."""
        flat = labels.flatten()
        places = (flat != IGNORED).nonzero().squeeze(1)
        labelled = hidden.transpose(0, 1).flatten(0, 1).index_select(0, places)
        loss = self.compute_language_model_loss(flat[places][None], self._logits(labelled[:, None]))[0]
        return loss.new_zeros(len(flat)).index_copy(0, places, loss).view_as(labels)


def _mask(attention_mask: torch.Tensor | None, cu_seqlens: torch.Tensor | None) -> torch.Tensor | None:
    """What the core attention wants: keys to hide `[batch, 1, 1, seq]`, or the boundaries of packed sequences."""
    if cu_seqlens is not None:
        assert attention_mask is None, "packed sequences are not padded"
        return boundaries_of(cu_seqlens)
    return None if attention_mask is None else ~attention_mask[:, None, None, :]

"""Which model types are text decoders: a table drawn from transformers, since the API has no transformers to ask.

A test compares it with the installed transformers, so that an upgrade shows what is new.
"""

from __future__ import annotations

import re


def _names(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


TRANSFORMERS_VERSION = "5.23.0"

DECODER_MODEL_TYPES = _names("""
    afmoe apertus arcee aria_text axk1 axk2 bailing_hybrid bamba beam biogpt bitnet bloom blt codegen cohere cohere2
    cohere2_moe cohere_compass_text cpmant ctrl cwm dbrx deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 diffllama
    doge dots1 dots3_note dots3_note_text ernie4_5 ernie4_5_moe exaone4 exaone_moe falcon falcon_h1 falcon_mamba
    flex_olmo flint gemma gemma2 gemma3_text gemma3n_text gemma4_text gemma4_unified_text glm glm4 glm4_moe
    glm4_moe_lite glm_moe_dsa gpt-sw3 gpt2 gpt_bigcode gpt_neo gpt_neox gpt_neox_japanese gpt_oss gptj granite
    granite_swa granitemoe granitemoe_swa granitemoehybrid granitemoeshared helium hrm_text hunyuan_v1_dense
    hunyuan_v1_moe hy_v3 hy_v4 hyperclovax inkling2_text inkling_text internlm3 iquestcoder jais2 jamba jetmoe
    kimi_linear kolibri1 laguna lfm2 lfm2_moe lfm3 llama llama4_text longcat_flash mamba mamba2 mellum mimo_v2_flash
    minicpm3 minimax minimax_m2 minimax_m3_vl_text ministral ministral3 mistral mixtral modernbert-decoder mpt
    nanochat nemotron nemotron_h olmo olmo2 olmo3 olmo_hybrid olmoe openai-gpt opt persimmon phi phi3 phimoe qwen2
    qwen2_moe qwen3 qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen3_moe qwen3_next qwen4_exp qwen4_exp_text
    recurrent_gemma rwkv seed_oss smollm3 solar_open stablelm starcoder2 vaultgemma xglm xlstm youtu zamba zamba2
    zaya
""")

SCALED_EMBEDDING_MODEL_TYPES = _names("""
    biogpt gemma gemma2 gemma3_text gemma3n_text gemma4_text gemma4_unified_text minicpm3 vaultgemma xglm
""")
"""Whose embedding module multiplies what it looks up."""

ENCODER_MODEL_TYPES = _names("""
    albert bart bert bert-generation big_bird camembert convbert data2vec-text deberta deberta-v2 distilbert electra
    ernie esm esmc eurobert flaubert fnet funnel gte ibert jina_embeddings_v3 layoutlm longformer luke mbart
    megatron-bert mobilebert modernbert modernvbert mpnet mra mvp neomme nomic_bert nystromformer perceiver reformer
    rembert roberta roberta-prelayernorm roc_bert roformer squeezebert tapas ultrabert ultravbert xlm xlm-roberta
    xlm-roberta-xl xmod yoso
""")

ENCODER_DECODER_MODEL_TYPES = _names("""
    audioflamingo3 bigbird_pegasus blenderbot blenderbot-small encoder-decoder fsmt glmasr granite_speech
    granite_speech_plus led longt5 m2m_100 marian moss_transcribe_diarize mt5 musicflamingo nemo_speechlm nllb-moe
    pegasus pegasus_x plbart prophetnet qwen2_audio qwen3_asr seamless_m4t seamless_m4t_v2 switch_transformers t5
    t5gemma t5gemma2 umt5 vibevoice_asr voxtral voxtral_realtime
""")

# The families that store a linear's weight as [in_features, out_features] (transformers' Conv1D), not [out, in].
CONV1D_MODEL_TYPES = frozenset({"gpt2", "openai-gpt"})

BLOCK_NUMBER = re.compile(r"\.(\d+)\.")
"""The first number in a linear's name is its block's."""

NUMBERED_EXPERT = re.compile(r"\.experts\.(\d+)\.")
"""In the names of what belongs to one of many experts."""

# The families whose experts are plain gated networks, stored one by one and stacked by transformers.
EXPERT_MODEL_TYPES = _names("""
    deepseek_v2 deepseek_v3 glm4_moe mixtral olmoe phimoe qwen2_moe qwen3_moe
""")

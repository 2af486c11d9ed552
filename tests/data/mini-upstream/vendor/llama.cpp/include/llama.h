#pragma once
#ifdef __cplusplus
extern "C" {
#endif
int llama_model_layers(void);
int llama_vocab_size(void);
int llama_answer(void);
#ifdef __cplusplus
}
#endif

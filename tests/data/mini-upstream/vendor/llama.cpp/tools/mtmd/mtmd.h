#pragma once
#ifdef __cplusplus
extern "C" {
#endif
const char * clip_greeting(void);
int mtmd_answer(void);
#ifdef __cplusplus
}
#endif

/* Wine 8 lacks bcryptprimitives.dll; programs made with Rust take ProcessPrng from it. */
#include <windows.h>
BOOLEAN NTAPI SystemFunction036(PVOID buffer, ULONG length);
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE p, SIZE_T n)
{
    while (n) {
        ULONG part = n > 0x10000000 ? 0x10000000 : (ULONG)n;
        if (!SystemFunction036(p, part))
            return FALSE;
        p += part;
        n -= part;
    }
    return TRUE;
}

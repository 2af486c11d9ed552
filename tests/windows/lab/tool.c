/* A program of Visual Studio or the Windows SDK that is there, but that no test may rely on. */
#include <stdio.h>
int wmain(void)
{
    fputs("this program of the tests can do nothing\n", stderr);
    return 3;
}

/* lib.exe as far as making an import library goes: what it was told to take in goes out unchanged. */
#include <stdio.h>
#include <wchar.h>

int wmain(int argc, wchar_t **argv)
{
    const wchar_t *from = NULL, *to = NULL;
    FILE *in, *out;
    int i, c;
    for (i = 1; i < argc; i++) {
        if (!wcsncmp(argv[i], L"/DEF:", 5))
            from = argv[i] + 5;
        if (!wcsncmp(argv[i], L"/OUT:", 5))
            to = argv[i] + 5;
    }
    if (!from || !to || !(in = _wfopen(from, L"rb")) || !(out = _wfopen(to, L"wb"))) {
        fputs("lib.exe of the tests: wants /DEF:file and /OUT:file\n", stderr);
        return 1;
    }
    while ((c = getc(in)) != EOF)
        putc(c, out);
    fclose(in);
    return fclose(out) != 0;
}

/* cl.exe as far as a probe and nvcc need it; its version is that of the folder it lies in
   (...\MSVC\14.44.35207\bin\Hostx64\x64). It understands @response files, answers nvcc's question
   for its version, "preprocesses" by copying, and "compiles" to a file that says so. Every call is
   a line of cl.log beside it. */
#include <windows.h>
#include <shellapi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

static wchar_t *words[4096];
static int count;

static int die(const char *what, const wchar_t *which)
{
    fprintf(stderr, "cl.exe of the tests: %s: %ls\n", what, which);
    return 2;
}

static char *contents(const wchar_t *path, size_t *size)
{
    FILE *file = _wfopen(path, L"rb");
    char *text;
    if (!file)
        return NULL;
    fseek(file, 0, SEEK_END);
    *size = ftell(file);
    rewind(file);
    text = malloc(*size + 1);
    *size = fread(text, 1, *size, file);
    text[*size] = 0;
    fclose(file);
    return text;
}

static void add_response(const wchar_t *path)
{
    size_t size = 0;
    char *text = contents(path, &size), *c;
    wchar_t *wide, **found;
    int n, i;
    if (!text)
        exit(die("cannot open", path));
    for (c = text; *c; c++)
        if (*c == '\r' || *c == '\n')
            *c = ' ';
    wide = malloc(sizeof(wchar_t) * (size + 4));
    wcscpy(wide, L"cl "); /* the first word is parsed otherwise than the rest */
    MultiByteToWideChar(CP_ACP, 0, text, -1, wide + 3, (int)size + 1);
    found = CommandLineToArgvW(wide, &n);
    for (i = 1; i < n; i++)
        words[count++] = found[i];
}

static void write_log(wchar_t *folder)
{
    static char utf8[1 << 20];
    FILE *log = _wfopen(wcscat(folder, L"\\cl.log"), L"ab");
    int i;
    for (i = 0; i < count; i++) {
        WideCharToMultiByte(CP_UTF8, 0, words[i], -1, utf8, sizeof utf8, NULL, NULL);
        fprintf(log, i ? "\t%s" : "%s", utf8);
    }
    fputs("\n", log);
    fclose(log);
}

int wmain(int argc, wchar_t **argv)
{
    static wchar_t self[32768];
    const wchar_t *toolset, *object = NULL;
    wchar_t *slash;
    int minor, build, i, quiet = 0, preprocess = 0;
    GetModuleFileNameW(NULL, self, 32768);
    toolset = wcsstr(self, L"\\MSVC\\14.");
    if (!toolset || swscanf(toolset, L"\\MSVC\\14.%d.%d", &minor, &build) != 2)
        return die("not in the folder of a toolset", self);
    *wcsrchr(self, L'\\') = 0;
    slash = wcsrchr(self, L'\\');
    for (i = 1; i < argc; i++)
        if (*argv[i] == L'@')
            add_response(argv[i] + 1);
        else
            words[count++] = argv[i];
    for (i = 0; i < count; i++) {
        if (!wcscmp(words[i] + 1, L"nologo"))
            quiet = 1;
        if (!wcscmp(words[i] + 1, L"E"))
            preprocess = 1;
        if (!wcsncmp(words[i] + 1, L"Fo", 2))
            object = words[i] + 3;
    }
    if (!quiet)
        fprintf(stderr,
                "Microsoft (R) C/C++ Optimizing Compiler Version 19.%d.%d for %ls\n"
                "Copyright (C) Microsoft Corporation.  All rights reserved.\n\n",
                minor, build, slash + 1);
    if (!count) {
        puts("usage: cl [ option... ] filename... [ /link linkoption... ]");
        return 0;
    }
    write_log(self);
    if (preprocess && count == 2) {
        printf("__NV_CPLUSPLUS 199711L\n__NV_X86_64__\n__NV_MSC_VER 19%d\n"
               "__NV_MSVC_LANG 201402L\n__NV_MSC_FULL_VER 19%d%05d\n", minor, minor, build);
        return 0;
    }
    if (preprocess) {
        size_t size = 0;
        char *text = contents(words[count - 1], &size);
        if (!text)
            return die("cannot open", words[count - 1]);
        puts("#line 1 \"kernel.cu\"");
        fwrite(text, 1, size, stdout);
        return 0;
    }
    if (object) {
        FILE *file = _wfopen(object, L"wb");
        if (!file)
            return die("cannot write", object);
        fputs("an object of the tests' cl.exe", file);
        fclose(file);
        return 0;
    }
    return die("knows no other work than -E and -Fo, the last word being", words[count - 1]);
}

/* vswhere.exe: prints the instances that lie beside it, one a .json file, in a list. A name with
   ".incomplete" is seen with -all alone, ".prerelease" with -prerelease, ".buildtools" with
   -products *. What the tests have no use for is refused as a parameter that does not exist. */
#include <windows.h>
#include <fcntl.h>
#include <io.h>
#include <stdio.h>
#include <string.h>
#include <wchar.h>

int _dowildcard = 0; /* "*" is a word, as for the real one */
static wchar_t folder[32768], path[32768];
static char buffer[1 << 20];

int wmain(int argc, wchar_t **argv)
{
    int i, all = 0, prerelease = 0, products = 0, json = 0, utf8 = 0, printed = 0;
    WIN32_FIND_DATAW entry;
    HANDLE search;
    for (i = 1; i < argc; i++) {
        const wchar_t *next = i + 1 < argc ? argv[i + 1] : L"";
        if (!wcscmp(argv[i], L"-all"))
            all = 1;
        else if (!wcscmp(argv[i], L"-prerelease"))
            prerelease = 1;
        else if (!wcscmp(argv[i], L"-utf8"))
            utf8 = 1;
        else if (!wcscmp(argv[i], L"-nologo"))
            continue;
        else if (!wcscmp(argv[i], L"-products") && !wcscmp(next, L"*"))
            products = ++i;
        else if (!wcscmp(argv[i], L"-format") && !wcscmp(next, L"json"))
            json = ++i;
        else {
            printf("Error 0x57: Unknown parameter: %ls\n", argv[i]);
            return 87;
        }
    }
    if (!json || !utf8) {
        puts("vswhere.exe of the tests: it speaks JSON in UTF-8 alone");
        return 87;
    }
    _setmode(_fileno(stdout), _O_BINARY);
    GetModuleFileNameW(NULL, folder, 32768);
    *wcsrchr(folder, L'\\') = 0;
    swprintf(path, 32768, L"%ls\\*.json", folder);
    fputs("[", stdout);
    search = FindFirstFileW(path, &entry);
    if (search != INVALID_HANDLE_VALUE)
        do {
            FILE *file;
            if ((wcsstr(entry.cFileName, L".incomplete") && !all) ||
                (wcsstr(entry.cFileName, L".prerelease") && !prerelease) ||
                (wcsstr(entry.cFileName, L".buildtools") && !products))
                continue;
            swprintf(path, 32768, L"%ls\\%ls", folder, entry.cFileName);
            if (!(file = _wfopen(path, L"rb")))
                return 5;
            buffer[fread(buffer, 1, sizeof buffer - 1, file)] = 0;
            fclose(file);
            printf("%s\r\n%s", printed++ ? "," : "", buffer);
        } while (FindNextFileW(search, &entry));
    fputs("\r\n]\r\n", stdout);
    return 0;
}

/* The python.exe of a venv, as CPython's PC/launcher.c (venvlauncher.exe): read pyvenv.cfg, set
   __PYVENV_LAUNCHER__, run <home>\python.exe with the same command line, return its exit code. */
#ifndef UNICODE
#define UNICODE
#endif
#ifndef _UNICODE
#define _UNICODE
#endif
#include <windows.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#define LONGEST 32768 /* no Windows path or command line is longer */
static wchar_t self[LONGEST], config[LONGEST], home[LONGEST], name[LONGEST];
static char text[65536];

static int die(const char *what, int code)
{
    fprintf(stderr, "venvlauncher: %s (%lu)\n", what, GetLastError());
    return code;
}

/* Beside the program or one folder above it. */
static FILE *open_config(void)
{
    FILE *file;
    wchar_t *slash;
    wcscpy(config, self);
    slash = wcsrchr(config, L'\\');
    wcscpy(name, slash + 1);
    *slash = 0;
    wcscpy(wcsrchr(config, L'\\') + 1, L"pyvenv.cfg");
    if ((file = _wfopen(config, L"rb")))
        return file;
    wcscpy(config, self);
    wcscpy(wcsrchr(config, L'\\') + 1, L"pyvenv.cfg");
    return _wfopen(config, L"rb");
}

/* The line "home = FOLDER", as the path of this program's namesake there. */
static int read_home(FILE *file)
{
    char *line;
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    for (line = text; line && strncmp(line, "home", 4);)
        if ((line = strchr(line, '\n')))
            line++;
    if (!line || !(line = strchr(line, '=')))
        return 0;
    while (*++line == ' ')
        ;
    line[strcspn(line, "\r\n")] = 0;
    MultiByteToWideChar(CP_UTF8, 0, line, -1, home, LONGEST);
    wcscat(home, L"\\");
    wcscat(home, name);
    return 1;
}

/* Our command line with another first word. */
static wchar_t *command_line(void)
{
    const wchar_t *rest = GetCommandLineW();
    wchar_t *line;
    if (*rest == L'"') {
        rest = wcschr(rest + 1, L'"');
        rest = rest ? rest + 1 : L"";
    } else
        while (*rest && *rest != L' ' && *rest != L'\t')
            rest++;
    line = malloc(sizeof(wchar_t) * (wcslen(home) + wcslen(rest) + 3));
    wcscpy(line, L"\"");
    wcscat(line, home);
    wcscat(line, L"\"");
    return wcscat(line, rest);
}

int wmain(void)
{
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION limits = {0};
    STARTUPINFOW startup = {0};
    PROCESS_INFORMATION child;
    DWORD code;
    HANDLE job;
    FILE *file;
    if (!GetModuleFileNameW(NULL, self, LONGEST))
        return die("GetModuleFileName", 101);
    if (!(file = open_config()))
        return die("no pyvenv.cfg", 106);
    if (!read_home(file))
        return die("no home in pyvenv.cfg", 107);
    SetEnvironmentVariableW(L"__PYVENV_LAUNCHER__", self);
    /* The child ends with us, as with the real launcher. */
    job = CreateJobObjectW(NULL, NULL);
    limits.BasicLimitInformation.LimitFlags =
        JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE | JOB_OBJECT_LIMIT_SILENT_BREAKAWAY_OK;
    SetInformationJobObject(job, JobObjectExtendedLimitInformation, &limits, sizeof limits);
    GetStartupInfoW(&startup);
    SetConsoleCtrlHandler(NULL, TRUE);
    if (!CreateProcessW(home, command_line(), NULL, NULL, TRUE, 0, NULL, NULL, &startup, &child))
        return die("CreateProcess", 108);
    AssignProcessToJobObject(job, child.hProcess);
    CloseHandle(child.hThread);
    WaitForSingleObject(child.hProcess, INFINITE);
    GetExitCodeProcess(child.hProcess, &code);
    return (int)code;
}

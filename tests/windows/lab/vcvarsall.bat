@echo off
rem What Visual Studio's vcvarsall.bat, VsDevCmd.bat and vcvars.bat do, as far as a build sees it:
rem the same variables, the same choice of a toolset, the same errors. @NAMES@ are filled in.
set "__ARCH=%~1"
if /i "%__ARCH%"=="amd64" set "__ARCH=x64"
if /i "%__ARCH%"=="x64" goto known
if /i "%__ARCH%"=="x86" goto known
echo [ERROR:%~nx0] Error in script usage. The correct usage is:
echo Syntax:
echo     vcvarsall.bat [arch] [platform_type] [winsdk_version] [-vcvars_ver=vc_version]
exit /B 1
:known
set "__VCVARS_VERSION="
set "__VCVARS_TOOLS_VERSION="
:arguments
shift
if "%~1"=="" goto parsed
if /i "%~1"=="-vcvars_ver" goto version
echo [ERROR:%~nx0] Invalid argument found : %~1
exit /B 1
:version
set "__VCVARS_VERSION=%~2"
shift
goto arguments
:parsed
echo **********************************************************************
echo ** Visual Studio @YEAR@ Developer Command Prompt v@VSCMD_VER@
echo ** Copyright (c) 2025 Microsoft Corporation
echo **********************************************************************
set "VSCMD_ARG_app_plat=Desktop"
set "VSCMD_ARG_HOST_ARCH=%__ARCH%"
set "VSCMD_ARG_TGT_ARCH=%__ARCH%"
set "VSCMD_VER=@VSCMD_VER@"
set "VisualStudioVersion=@MAJOR@.0"
for %%I in ("%~dp0..\..\..") do set "VSINSTALLDIR=%%~fI\"
set "DevEnvDir=%VSINSTALLDIR%Common7\IDE\"
set "VS@MAJOR@0COMNTOOLS=%VSINSTALLDIR%Common7\Tools\"
set "Framework40Version=v4.0"
set "__DOTNET_ADD_64BIT=1"
set "__DOTNET_PREFERRED_BITNESS=64"
if "%__VSCMD_PREINIT_PATH%"=="" set "__VSCMD_PREINIT_PATH=%PATH%"
set "PATH=%VSINSTALLDIR%Common7\IDE\;%VSINSTALLDIR%Common7\Tools\;%PATH%"
set "PATH=%VSINSTALLDIR%\MSBuild\Current\Bin\amd64;%PATH%"
set "__KITS=%ProgramFiles(x86)%\Windows Kits\10\"
set "__SDK=@SDK@"
if not exist "%__KITS%include\%__SDK%\um\windows.h" goto toolset
set "WindowsSdkDir=%__KITS%"
set "UniversalCRTSdkDir=%__KITS%"
set "UCRTVersion=%__SDK%"
set "WindowsSDKVersion=%__SDK%\"
set "WindowsSDKLibVersion=%__SDK%\"
set "WindowsSdkBinPath=%__KITS%bin\"
set "WindowsSdkVerBinPath=%__KITS%bin\%__SDK%\"
set "WindowsLibPath=%__KITS%UnionMetadata\%__SDK%;%__KITS%References\%__SDK%"
set "PATH=%__KITS%bin\%__SDK%\%__ARCH%;%__KITS%bin\%__ARCH%;%PATH%"
set "__INC=%__KITS%include\%__SDK%\"
set "INCLUDE=%__INC%ucrt;%__INC%um;%__INC%shared;%__INC%winrt;%__INC%cppwinrt;%INCLUDE%"
set "LIB=%__KITS%lib\%__SDK%\ucrt\%__ARCH%;%__KITS%lib\%__SDK%\um\%__ARCH%;%LIB%"
set "LIBPATH=%WindowsLibPath%;%LIBPATH%"
:toolset
rem Without the option, the caller's own VCToolsVersion is taken for one.
if "%__VCVARS_VERSION%"=="" set "__VCVARS_VERSION=%VCToolsVersion%"
if "%__VCVARS_VERSION%"=="" set "__VCVARS_TOOLS_VERSION=@DEFAULT@"
@MATCHES@
if not "%__VCVARS_TOOLS_VERSION%"=="" goto found
set "__THIRD="
for /F "tokens=3 delims=." %%a in ("%__VCVARS_VERSION%") do set "__THIRD=%%a"
if "%__THIRD%"=="" echo [ERROR:vcvars.bat] Toolset directory for version '%__VCVARS_VERSION%' was not found.
if not "%__THIRD%"=="" echo [ERROR:vcvars.bat] Version '%__VCVARS_VERSION%' is not valid; directory does not exist
echo [ERROR:VsDevCmd.bat] *** VsDevCmd.bat encountered errors. Environment may be incomplete and/or incorrect. ***
echo [ERROR:VsDevCmd.bat] In an uninitialized command prompt, please 'set VSCMD_DEBUG=[value]' and then re-run
echo [ERROR:VsDevCmd.bat] vsdevcmd.bat [args] for additional details.
exit /B 1
:found
set "VCINSTALLDIR=%VSINSTALLDIR%VC\"
set "VCIDEInstallDir=%VSINSTALLDIR%Common7\IDE\VC\"
set "VCToolsVersion=%__VCVARS_TOOLS_VERSION%"
set "VCToolsInstallDir=%VCINSTALLDIR%Tools\MSVC\%VCToolsVersion%\"
set "VCToolsRedistDir=%VCINSTALLDIR%Redist\MSVC\@REDIST@\"
set "CommandPromptType=Native"
set "Platform=%__ARCH%"
set "PATH=%VCToolsInstallDir%bin\HostX%__ARCH:~1%\%__ARCH%;%VCIDEInstallDir%VCPackages;%PATH%"
set "__CMAKE=%VSINSTALLDIR%Common7\IDE\CommonExtensions\Microsoft\CMake\"
set "PATH=%PATH%;%__CMAKE%CMake\bin;%__CMAKE%Ninja"
set "INCLUDE=%VCToolsInstallDir%include;%VSINSTALLDIR%VC\Auxiliary\VS\include;%INCLUDE%"
set "LIB=%VCToolsInstallDir%lib\%__ARCH%;%LIB%"
set "LIBPATH=%VCToolsInstallDir%lib\%__ARCH%;%VCToolsInstallDir%lib\x86\store\references;%LIBPATH%"
set "EXTERNAL_INCLUDE=%INCLUDE%"
set "__ARCH="
set "__VCVARS_VERSION="
set "__VCVARS_TOOLS_VERSION="
set "__KITS="
set "__SDK="
set "__INC="
set "__CMAKE="
echo [%~nx0] Environment initialized for: '%VSCMD_ARG_TGT_ARCH%'
exit /B 0

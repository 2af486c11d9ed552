# Builds and installs what a wheel contains. CMake reads this file right after upstream's project()
# (CMAKE_PROJECT_llama_cpp_INCLUDE), so upstream's files are not changed.
#
# Upstream installs every library three times (into the source tree, into the wheel, and for C++
# developers) and builds command line tools. Here the target `blackwheel` builds only the shipped
# libraries, and the install component `blackwheel` puts each of them into the wheel once.

# Also shipped: the modules that ggml loads at run time, one for each kind of CPU.
set(BLACKWHEEL_LIBRARIES llama ggml ggml-base ggml-cpu ggml-cuda mtmd)

function(blackwheel_ship)
    set(present)
    foreach(library IN LISTS BLACKWHEEL_LIBRARIES)
        if(TARGET ${library})
            list(APPEND present ${library})
        endif()
    endforeach()
    set(backends)
    if(TARGET ggml)
        get_target_property(folder ggml SOURCE_DIR)
        get_property(backends DIRECTORY "${folder}" PROPERTY BUILDSYSTEM_TARGETS)
    endif()
    list(FILTER backends INCLUDE REGEX "^ggml-cpu-")
    list(FILTER backends EXCLUDE REGEX "-feats$")  # they only tell whether a CPU can run the module
    # A module that is left out is compiled from an empty file, because upstream's ggml depends on it.
    foreach(name IN LISTS BLACKWHEEL_LEFT_OUT)
        if(TARGET ggml-cpu-${name})
            list(REMOVE_ITEM backends ggml-cpu-${name})
            file(CONFIGURE OUTPUT "${CMAKE_BINARY_DIR}/left-out.c" CONTENT "" @ONLY)
            set_property(TARGET ggml-cpu-${name} PROPERTY SOURCES "${CMAKE_BINARY_DIR}/left-out.c")
        endif()
    endforeach()
    list(APPEND present ${backends})

    # One file per library: a zip would contain libX.so -> libX.so.0 -> libX.so.0.1 three times.
    # The only search path is the library's own folder.
    foreach(library IN LISTS present)
        set_property(TARGET ${library} PROPERTY VERSION)
        set_property(TARGET ${library} PROPERTY SOVERSION)
    endforeach()
    if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
        foreach(library IN LISTS present)
            blackwheel_by_path(${library})
        endforeach()
    endif()
    # llama.dll with every compiler: MinGW would name it libllama.dll.
    if(WIN32)
        set_target_properties(${present} PROPERTIES PREFIX "")
    endif()
    set_target_properties(${present} PROPERTIES
        INSTALL_RPATH "$<$<PLATFORM_ID:Linux>:$ORIGIN>"
        INSTALL_RPATH_USE_LINK_PATH OFF
        BUILD_WITH_INSTALL_RPATH ON
    )

    blackwheel_modules_where_asked()
    blackwheel_plain_includes("${CMAKE_SOURCE_DIR}")
    if(TARGET ggml-cuda)
        blackwheel_merge(ggml-cuda)
        blackwheel_longest_first(ggml-cuda mmf mmq-instance-q[2356] mmq-instance mmv[fq]
            fattn-mma.*ncols2_[18]\\. fattn-mma [^/]*-and-more
        )
        # ninja starts those steps first for which most steps wait. llama's long files would start
        # last, after all CUDA files, so the library that is linked first is made to wait for them.
        foreach(late llama mtmd)
            if(TARGET ${late})
                set_property(TARGET ggml-base APPEND PROPERTY LINK_DEPENDS "$<TARGET_OBJECTS:${late}>")
            endif()
        endforeach()
        blackwheel_same_anywhere(ggml-cuda)
    endif()

    add_custom_target(blackwheel DEPENDS ${present})
    install(TARGETS ${present}
        LIBRARY DESTINATION "${SKBUILD_PLATLIB_DIR}/llama_cpp/lib" COMPONENT blackwheel
        RUNTIME DESTINATION "${SKBUILD_PLATLIB_DIR}/llama_cpp/lib" COMPONENT blackwheel
        ARCHIVE DESTINATION "${SKBUILD_PLATLIB_DIR}/llama_cpp/lib" COMPONENT blackwheel-unshipped
        PUBLIC_HEADER DESTINATION "unshipped" COMPONENT blackwheel-unshipped
    )

    # The SBOM (PEP 770), in the top folder of the staged source.
    install(FILES "${CMAKE_SOURCE_DIR}/blackwheel.cdx.json"
        DESTINATION "${SKBUILD_METADATA_DIR}/sboms" COMPONENT blackwheel
    )

    # The OpenMP runtime of the compiler; for an older glibc, the copy that was made for it.
    if(GGML_OPENMP AND CMAKE_SYSTEM_NAME STREQUAL "Linux" AND CMAKE_C_COMPILER_ID STREQUAL "GNU")
        execute_process(
            COMMAND "${CMAKE_C_COMPILER}" -print-file-name=libgomp.so.1
            OUTPUT_VARIABLE gomp OUTPUT_STRIP_TRAILING_WHITESPACE
        )
        file(REAL_PATH "${gomp}" gomp)
        if(BLACKWHEEL_GLIBC)
            set(gomp "${CMAKE_BINARY_DIR}/../link/libgomp.so.1")
        endif()
        install(FILES "${gomp}"
            DESTINATION "${SKBUILD_PLATLIB_DIR}/llama_cpp/lib" RENAME libgomp.so.1
            COMPONENT blackwheel
        )
    endif()
endfunction()

# The libraries of a wheel need each other by path, "$ORIGIN/libggml.so": ld.so expands $ORIGIN in
# DT_NEEDED (ld.so(8), dynamic string tokens). It would look for a plain name first in the process,
# where another package may have loaded a libggml.so, then in LD_LIBRARY_PATH. The linker copies the
# name from DT_SONAME of the library that it links with.
function(blackwheel_by_path library)
    set_target_properties(${library} PROPERTIES NO_SONAME ON)
    # target_link_options would remove the dollar sign.
    set_property(TARGET ${library} APPEND_STRING PROPERTY
        LINK_FLAGS " -Wl,-soname,'$ORIGIN/lib${library}.so'"
    )
endfunction()

# Upstream names folders as "src/ggml-cuda/..", which would appear in __FILE__. ccache gives the
# compiler the shortest path; this function does the same, so that the result does not differ.
function(blackwheel_plain_includes folder)
    get_property(targets DIRECTORY "${folder}" PROPERTY BUILDSYSTEM_TARGETS)
    foreach(target IN LISTS targets)
        foreach(property IN ITEMS INCLUDE_DIRECTORIES INTERFACE_INCLUDE_DIRECTORIES)
            get_target_property(includes ${target} ${property})
            if(includes)
                set(plain)
                foreach(include IN LISTS includes)
                    cmake_path(NORMAL_PATH include)
                    string(REGEX REPLACE "/$" "" include "${include}")
                    list(APPEND plain "${include}")
                endforeach()
                set_property(TARGET ${target} PROPERTY ${property} "${plain}")
            endif()
        endforeach()
    endforeach()
    get_property(children DIRECTORY "${folder}" PROPERTY SUBDIRECTORIES)
    foreach(child IN LISTS children)
        blackwheel_plain_includes("${child}")
    endforeach()
endfunction()

# GGML_BACKEND_DL matters only to ggml-cuda.cu and to the CPU modules. Everything else is compiled
# without it, so that objects of builds with linked libraries in a compiler cache can be used.
function(blackwheel_modules_where_asked)
    foreach(target IN ITEMS ggml-base ggml-cuda)
        foreach(property IN ITEMS COMPILE_DEFINITIONS INTERFACE_COMPILE_DEFINITIONS)
            if(TARGET ${target})
                get_target_property(definitions ${target} ${property})
                list(REMOVE_ITEM definitions GGML_BACKEND_DL definitions-NOTFOUND)
                set_property(TARGET ${target} PROPERTY ${property} "${definitions}")
            endif()
        endforeach()
    endforeach()
    if(TARGET ggml-cuda)
        get_target_property(folder ggml-cuda SOURCE_DIR)
        set_property(SOURCE "${folder}/ggml-cuda.cu" TARGET_DIRECTORY ggml-cuda
            APPEND PROPERTY COMPILE_DEFINITIONS GGML_BACKEND_DL
        )
    endif()
endfunction()

# Compiles groups of files together. BLACKWHEEL_MERGED names them: "acc arange;mean sum" are two groups.
# CMake's unity builds exclude files with their own options, which all of these get below.
function(blackwheel_merge target)
    get_target_property(folder ${target} SOURCE_DIR)
    get_target_property(tree ${target} BINARY_DIR)
    foreach(group IN LISTS BLACKWHEEL_MERGED)
        string(REPLACE " " ";" names "${group}")
        list(GET names 0 first)
        set(text)
        foreach(name IN LISTS names)
            if(EXISTS "${folder}/${name}.cu")  # the user may have removed it
                string(APPEND text "#include \"${name}.cu\"\n")
                set_property(SOURCE "${folder}/${name}.cu" TARGET_DIRECTORY ${target}
                    PROPERTY HEADER_FILE_ONLY ON
                )
            endif()
        endforeach()
        if(text)
            set(merged "${tree}/${first}-and-more.cu")
            file(CONFIGURE OUTPUT "${merged}" CONTENT "${text}" @ONLY)
            target_sources(${target} PRIVATE "${merged}")
            set_property(SOURCE "${merged}" TARGET_DIRECTORY ${target}
                PROPERTY INCLUDE_DIRECTORIES "${folder}"
            )
        endif()
    endforeach()
endfunction()

# Puts the sources that take longest first: ninja starts steps in the order of CMake's sources, and
# a long step that starts late makes the build longer. The arguments are patterns for the start of
# file names, in the order of the files' times (docs/performance.md).
function(blackwheel_longest_first target)
    get_target_property(rest ${target} SOURCES)
    set(ordered)
    foreach(pattern IN LISTS ARGN)
        set(matching ${rest})
        list(FILTER matching INCLUDE REGEX "/${pattern}[^/]*$")
        list(FILTER rest EXCLUDE REGEX "/${pattern}[^/]*$")
        list(APPEND ordered ${matching})
    endforeach()
    set_property(TARGET ${target} PROPERTY SOURCES ${ordered} ${rest})
endfunction()

# Makes nvcc's objects independent of the build folder and of the compiler cache.
function(blackwheel_same_anywhere target)
    # The names of a file's local symbols contain a CRC of its absolute path, which nvcc passes to its
    # front ends with this option (see --dryrun). They use the last one, which is ours.
    get_target_property(sources ${target} SOURCES)
    list(FILTER sources INCLUDE REGEX "\\.cu$")
    foreach(source IN LISTS sources)
        file(RELATIVE_PATH path "${CMAKE_SOURCE_DIR}" "${source}")
        set_property(SOURCE "${source}" TARGET_DIRECTORY ${target} APPEND PROPERTY
            COMPILE_OPTIONS "-Xcudafe=--orig_src_path_name=${path}"
        )
    endforeach()

    if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
        # __FILE__ on host and device; with ccache the path of the source is relative to the tree.
        file(RELATIVE_PATH up "${CMAKE_BINARY_DIR}" "${CMAKE_SOURCE_DIR}")
        # nvcc passes these on through a shell and quotes only options that it knows.
        string(REGEX REPLACE "([][ '\"()&<>|*?#~!{}^`])" "\\\\\\1" here "${CMAKE_SOURCE_DIR}")
        set(maps "-ffile-prefix-map=${here}=src" "-ffile-prefix-map=${up}=src")
        target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:${maps}>")
        # Objects contain the names of nvcc's temporary files, which contain its process id. They are
        # stripped during the link, because the build id is a hash of them.
        # (--objdir-as-tempdir would avoid these names, but sccache fails with it.)
        target_link_options(${target} PRIVATE -s)
    endif()
endfunction()

cmake_language(DEFER CALL blackwheel_ship)

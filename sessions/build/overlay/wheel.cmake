# What a wheel is made of. CMake reads this file right after upstream's project() call
# (CMAKE_PROJECT_llama_cpp_INCLUDE), so upstream's own files stay as they are.
#
# Upstream installs every library three times (into the source tree, into the wheel, and once more
# as a C++ developer would want it) and builds command line tools that no wheel needs. Here one
# target, `blackwheel`, builds the shipped libraries alone, and one install component of the same
# name puts each of them into the wheel once.

# Beside these are the modules that ggml loads at run time, one for each kind of CPU.
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
    list(FILTER backends EXCLUDE REGEX "-feats$")  # the question whether a CPU can run the module
    # A module that is not shipped has nothing to compile: upstream's ggml depends on each.
    foreach(name IN LISTS BLACKWHEEL_LEFT_OUT)
        if(TARGET ggml-cpu-${name})
            list(REMOVE_ITEM backends ggml-cpu-${name})
            file(CONFIGURE OUTPUT "${CMAKE_BINARY_DIR}/left-out.c" CONTENT "" @ONLY)
            set_property(TARGET ggml-cpu-${name} PROPERTY SOURCES "${CMAKE_BINARY_DIR}/left-out.c")
        endif()
    endforeach()
    list(APPEND present ${backends})

    # One file a library: no libX.so -> libX.so.0 -> libX.so.0.1, which a zip would hold thrice.
    # No search path but the library's own folder: the build machine's are of no use elsewhere.
    foreach(library IN LISTS present)
        set_property(TARGET ${library} PROPERTY VERSION)
        set_property(TARGET ${library} PROPERTY SOVERSION)
    endforeach()
    if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
        foreach(library IN LISTS present)
            blackwheel_by_path(${library})
        endforeach()
    endif()
    # llama.dll, whichever compiler makes it: MinGW's would be libllama.dll.
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
        # ninja prefers the steps that most other steps wait for. llama's long files would come last,
        # after all of CUDA's: the first library that is linked waits for them.
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

    # The bill of materials (PEP 770), which the staged source has at its top.
    install(FILES "${CMAKE_SOURCE_DIR}/blackwheel.cdx.json"
        DESTINATION "${SKBUILD_METADATA_DIR}/sboms" COMPONENT blackwheel
    )

    # The OpenMP runtime of the compiler goes with the libraries that need it: of a wheel for an older
    # glibc, the copy that is made for that.
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

# The libraries of a wheel need each other by path, "$ORIGIN/libggml.so", not by name: ld.so expands
# that in DT_NEEDED (ld.so(8), dynamic string tokens). A name is looked for in the process first,
# where another package may have a libggml.so, then in LD_LIBRARY_PATH, then in the search path of
# the library. A linker copies the name from DT_SONAME of the library that it links with.
function(blackwheel_by_path library)
    set_target_properties(${library} PROPERTIES NO_SONAME ON)
    # Not target_link_options, which leaves nothing of a dollar sign.
    set_property(TARGET ${library} APPEND_STRING PROPERTY
        LINK_FLAGS " -Wl,-soname,'$ORIGIN/lib${library}.so'"
    )
endfunction()

# Upstream names folders as "src/ggml-cuda/..", and __FILE__ in a header there repeats that. ccache
# tells the compiler the shortest spelling: without it, it is told the same.
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

# Only the backends' own registrations ask whether they are modules: ggml-cuda.cu, and all of a CPU's.
# Everything else is compiled as for libraries that are linked, so that a compiler cache serves both.
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

# Files that BLACKWHEEL_MERGED names ("acc arange;mean sum": a list of files to compile as one), in
# one. CMake's own unity builds take no file with options of its own, which all of these get below.
function(blackwheel_merge target)
    get_target_property(folder ${target} SOURCE_DIR)
    get_target_property(tree ${target} BINARY_DIR)
    foreach(group IN LISTS BLACKWHEEL_MERGED)
        string(REPLACE " " ";" names "${group}")
        list(GET names 0 first)
        set(text)
        foreach(name IN LISTS names)
            if(EXISTS "${folder}/${name}.cu")  # the user may have edited the source
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

# ninja starts steps in the order of CMake's sources, and with many cores all wait for a long one that
# was started late. The patterns, of the beginnings of
# names, are in the order of the files' times (docs/performance.md).
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

# nvcc's part of a library, the same whatever folder it was made in and whether or not from a cache.
function(blackwheel_same_anywhere target)
    # Names of what is local to a file hold a CRC of its absolute path, links resolved, which nvcc
    # gives its front ends in this option (see --dryrun). Of two they take the last: ours.
    get_target_property(sources ${target} SOURCES)
    list(FILTER sources INCLUDE REGEX "\\.cu$")
    foreach(source IN LISTS sources)
        file(RELATIVE_PATH path "${CMAKE_SOURCE_DIR}" "${source}")
        set_property(SOURCE "${source}" TARGET_DIRECTORY ${target} APPEND PROPERTY
            COMPILE_OPTIONS "-Xcudafe=--orig_src_path_name=${path}"
        )
    endforeach()

    if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
        # __FILE__, on host and device; with ccache the source is spelled from the tree.
        file(RELATIVE_PATH up "${CMAKE_BINARY_DIR}" "${CMAKE_SOURCE_DIR}")
        # nvcc hands this on through a shell, and quotes no option that it does not know itself.
        string(REGEX REPLACE "([][ '\"()&<>|*?#~!{}^`])" "\\\\\\1" here "${CMAKE_SOURCE_DIR}")
        set(maps "-ffile-prefix-map=${here}=src" "-ffile-prefix-map=${up}=src")
        target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:${maps}>")
        # Objects name nvcc's temporary files, which hold its process id. Stripped after the link
        # they would still be in the build id. (--objdir-as-tempdir would do; sccache fails on it.)
        target_link_options(${target} PRIVATE -s)
    endif()
endfunction()

cmake_language(DEFER CALL blackwheel_ship)

# What a wheel is made of. CMake reads this file right after upstream's project() call
# (CMAKE_PROJECT_llama_cpp_INCLUDE), so upstream's own files stay as they are.
#
# Upstream installs every library three times (into the source tree, into the wheel, and once more
# as a C++ developer would want it) and builds command line tools that no wheel needs. Here one
# target, `blackwheel`, builds the shipped libraries alone, and one install component of the same
# name puts each of them into the wheel once.

set(BLACKWHEEL_LIBRARIES llama ggml ggml-base ggml-cpu ggml-cuda mtmd)

function(blackwheel_ship)
    set(present)
    foreach(library IN LISTS BLACKWHEEL_LIBRARIES)
        if(TARGET ${library})
            list(APPEND present ${library})
        endif()
    endforeach()

    # One file a library: no libX.so -> libX.so.0 -> libX.so.0.1, which a zip would hold thrice.
    # No search path but the library's own folder: the build machine's are of no use elsewhere.
    foreach(library IN LISTS present)
        set_property(TARGET ${library} PROPERTY VERSION)
        set_property(TARGET ${library} PROPERTY SOVERSION)
    endforeach()
    # llama.dll, whichever compiler makes it: MinGW's would be libllama.dll.
    if(WIN32)
        set_target_properties(${present} PROPERTIES PREFIX "")
    endif()
    set_target_properties(${present} PROPERTIES
        INSTALL_RPATH "$<$<PLATFORM_ID:Linux>:$ORIGIN>"
        INSTALL_RPATH_USE_LINK_PATH OFF
        BUILD_WITH_INSTALL_RPATH ON
    )

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

    # The OpenMP runtime of the compiler goes with the libraries that need it.
    if(CMAKE_SYSTEM_NAME STREQUAL "Linux" AND CMAKE_C_COMPILER_ID STREQUAL "GNU")
        execute_process(
            COMMAND "${CMAKE_C_COMPILER}" -print-file-name=libgomp.so.1
            OUTPUT_VARIABLE gomp OUTPUT_STRIP_TRAILING_WHITESPACE
        )
        file(REAL_PATH "${gomp}" gomp)
        install(FILES "${gomp}"
            DESTINATION "${SKBUILD_PLATLIB_DIR}/llama_cpp/lib" RENAME libgomp.so.1
            COMPONENT blackwheel
        )
    endif()
endfunction()

cmake_language(DEFER CALL blackwheel_ship)

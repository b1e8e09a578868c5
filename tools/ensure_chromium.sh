#!/bin/sh
# Print the path of a Chromium for the browser tests; install one where that is possible without asking anybody.
find_chromium() {
    for name in ${PERSONA_EXPLORER_CHROMIUM:-} chromium chromium-browser google-chrome-stable google-chrome; do
        if "$name" --version >/dev/null 2>&1; then command -v "$name"; return 0; fi
    done
    for path in "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" "/Applications/Chromium.app/Contents/MacOS/Chromium"; do
        if [ -x "$path" ]; then echo "$path"; return 0; fi
    done
    return 1
}

find_chromium && exit 0
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "Installing Chromium with apt-get ..." >&2
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium; } >&2
    find_chromium && exit 0
fi
echo "The browser tests need Chromium, and none was found." >&2
echo "Install it (Debian: sudo apt-get install chromium; macOS: brew install --cask chromium), or name one:" >&2
echo "    PERSONA_EXPLORER_CHROMIUM=/path/to/chromium make test" >&2
exit 1

// The page of a program that was built without the real one. Header only.
#pragma once

#include <string_view>

namespace sluice::server {

inline constexpr std::string_view kPlainPage = R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sluice</title>
<meta name="viewport" content="width=device-width">
<style>body{font:16px/1.5 system-ui;max-width:40em;margin:3em auto;padding:0 1em}
@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}a{color:#8cf}}</style></head>
<body><h1>Sluice</h1><p>This server speaks OpenAI's API below <code>/v1</code>. Point a client at it:</p>
<pre>OpenAI(base_url="http://127.0.0.1:8080/v1", api_key="none")</pre>
<p>It also has <a href="/v1/models">/v1/models</a>, <a href="/slots">/slots</a> and
<a href="/metrics">/metrics</a>.</p></body></html>
)";

inline constexpr std::string_view kPlainPagePolicy =
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'";

}  // namespace sluice::server

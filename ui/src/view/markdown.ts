// A model's text as HTML. Raw HTML in it stays text (markdown-it), and what comes out is reduced to
// a short list of elements all the same (DOMPurify); no image is loaded from anywhere.
import DOMPurify from "dompurify";
import hljs from "highlight.js/lib/core";
import bash from "highlight.js/lib/languages/bash";
import cpp from "highlight.js/lib/languages/cpp";
import css from "highlight.js/lib/languages/css";
import diff from "highlight.js/lib/languages/diff";
import javascript from "highlight.js/lib/languages/javascript";
import json from "highlight.js/lib/languages/json";
import python from "highlight.js/lib/languages/python";
import rust from "highlight.js/lib/languages/rust";
import sql from "highlight.js/lib/languages/sql";
import typescript from "highlight.js/lib/languages/typescript";
import xml from "highlight.js/lib/languages/xml";
import yaml from "highlight.js/lib/languages/yaml";
import MarkdownIt from "markdown-it";

const languages = {
  bash, cpp, css, diff, javascript, json, python, rust, sql, typescript, xml, yaml,
};
Object.entries(languages).forEach(([name, language]) => hljs.registerLanguage(name, language));

const kAllowed = {
  ALLOWED_TAGS: [
    "p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "strong", "em", "s", "a", "code", "pre",
    "blockquote", "ul", "ol", "li", "table", "thead", "tbody", "tr", "th", "td", "div", "span",
    "button",
  ],
  ALLOWED_ATTR: ["class", "href", "target", "rel", "type", "start", "data-copy", "tabindex"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ALLOW_DATA_ATTR: false,
};

const markdown = new MarkdownIt({ html: false, linkify: true, breaks: false });
markdown.disable("image");
const escape = markdown.utils.escapeHtml;

markdown.renderer.rules["link_open"] = (tokens, index, options, _env, self) => {
  tokens[index]?.attrSet("target", "_blank");
  tokens[index]?.attrSet("rel", "noopener noreferrer");
  return self.renderToken(tokens, index, options);
};

function code(content: string, info: string): string {
  const language = info.trim().split(/\s+/)[0] ?? "";
  const body = hljs.getLanguage(language)
    ? hljs.highlight(content, { language, ignoreIllegals: true }).value
    : escape(content);
  return (
    `<div class="code"><div class="code-head"><span>${escape(language || "text")}</span>` +
    `<button type="button" data-copy="">Copy</button></div>` +
    `<pre tabindex="0"><code>${body}</code></pre></div>`
  );
}
markdown.renderer.rules["fence"] = (tokens, index) =>
  code(tokens[index]?.content ?? "", tokens[index]?.info ?? "");
markdown.renderer.rules["code_block"] = (tokens, index) => code(tokens[index]?.content ?? "", "");

export const toHtml = (text: string): string =>
  DOMPurify.sanitize(markdown.render(text), kAllowed);

// Only where a page may safely go; a source's address comes from the web.
export const safeUrl = (url: string): string | undefined =>
  /^https?:\/\//i.test(url) ? url : undefined;

// Server-sent events out of a stream of bytes, however they are cut: lines may end in CR, LF or
// both, and a piece may end within a character. Only the data of an event matters here.

const kEventCharsMax = 8 << 20;

export class SseParser {
  private decoder = new TextDecoder();
  private line = "";
  private data: string[] = [];
  private chars = 0;
  private afterCr = false;

  // The data of every event that these bytes end.
  push(bytes: Uint8Array): string[] {
    const events: string[] = [];
    let text = this.decoder.decode(bytes, { stream: true });
    if (text === "") return events;
    if (this.afterCr && text.startsWith("\n")) text = text.slice(1);
    this.afterCr = text === "" ? false : text.endsWith("\r");
    const lines = text.split(/\r\n|\r|\n/);
    lines.forEach((piece, index) => {
      this.line += piece;
      if (index === lines.length - 1) return;
      this.end(events);
    });
    if (this.line.length + this.chars > kEventCharsMax) {
      throw new Error("The server sent an event that is too long.");
    }
    return events;
  }

  private end(events: string[]): void {
    const line = this.line;
    this.line = "";
    if (line === "") {
      if (this.data.length > 0) events.push(this.data.join("\n"));
      this.data = [];
      this.chars = 0;
    } else if (line.startsWith("data:")) {
      const value = line.slice(line[5] === " " ? 6 : 5);
      this.data.push(value);
      this.chars += value.length;
    }
  }
}

// The events of a reply, as JSON values, until "[DONE]" or its end.
export async function* events(body: ReadableStream<Uint8Array>): AsyncGenerator<unknown> {
  const parser = new SseParser();
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      for (const data of parser.push(value)) {
        if (data === "[DONE]") return;
        yield JSON.parse(data) as unknown;
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

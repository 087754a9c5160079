import { describe, expect, it } from "vitest";
import { events, SseParser } from "../src/api/sse";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

describe("SseParser", () => {
  const text = 'data: {"a":"é€😀"}\r\n\r\n: comment\ndata:1\ndata: 2\n\nevent: x\r\rid: 7\ndata: end\n\n';
  const told = ['{"a":"é€😀"}', "1\n2", "end"];

  it("gives the same events wherever the bytes are cut", () => {
    const all = bytes(text);
    for (let first = 0; first <= all.length; ++first) {
      for (const second of [first, Math.min(first + 1, all.length), all.length]) {
        const parser = new SseParser();
        const pieces = [all.slice(0, first), all.slice(first, second), all.slice(second)];
        expect(pieces.flatMap((piece) => parser.push(piece))).toEqual(told);
      }
    }
  });

  it("gives nothing for an event without its end", () => {
    expect(new SseParser().push(bytes("data: half\n"))).toEqual([]);
  });

  it("refuses an event without limit", () => {
    const parser = new SseParser();
    const piece = bytes("x".repeat(1 << 20));
    expect(() => {
      for (let count = 0; count < 10; ++count) parser.push(piece);
    }).toThrow("too long");
  });
});

it("events ends at [DONE] and fails for what is not JSON", async () => {
  const read = async (text: string): Promise<unknown[]> => {
    const found: unknown[] = [];
    const body = new Response(text).body;
    if (body) for await (const event of events(body)) found.push(event);
    return found;
  };
  expect(await read('data: {"a":1}\n\ndata: [DONE]\n\ndata: 2\n\n')).toEqual([{ a: 1 }]);
  await expect(read("data: {\n\n")).rejects.toThrow(SyntaxError);
});

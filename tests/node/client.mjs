// OpenAI's own package for Node against a live server: `node client.mjs URL MODEL`.
// One line of JSON a case: its name, and what went wrong or null.

import assert from "node:assert/strict";
import OpenAI from "openai";

const [url, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "any", maxRetries: 0 });
const messages = [{ role: "user", content: "What is the capital of France?" }];
const asked = { model, messages, temperature: 0, max_tokens: 12, ignore_eos: true };

const collect = async (stream) => {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
};

const textOf = (chunks, index = 0) =>
  chunks
    .flatMap((chunk) => chunk.choices)
    .filter((choice) => choice.index === index)
    .map((choice) => choice.delta.content ?? "")
    .join("");

const metric = async (name) => {
  const lines = (await (await fetch(`${url}/metrics`)).text()).split("\n");
  const found = lines.find((line) => line.startsWith(`minisgl:${name}`));
  return Number(found.split(" ").at(-1));
};

const until = async (condition, what) => {
  for (let waited = 0; waited < 10_000; waited += 20) {
    if (await condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.fail(`waited 10 s in vain: ${what}`);
};

const refused = async (promise, kind, param, code = null) => {
  const error = await promise.then(
    () => assert.fail("it was not refused"),
    (error) => error,
  );
  assert.ok(error instanceof kind, `${error}`);
  assert.equal(error.param, param);
  assert.equal(error.code, code);
  return error;
};

const cases = {
  async chat() {
    const answer = await client.chat.completions.create(asked);
    const [choice] = answer.choices;
    assert.equal(answer.object, "chat.completion");
    assert.equal(answer.model, model);
    assert.equal(choice.message.role, "assistant");
    assert.ok(choice.message.content.length > 0);
    assert.equal(choice.finish_reason, "length");
  },

  async usage() {
    const { usage } = await client.chat.completions.create(asked);
    const again = (await client.chat.completions.create(asked)).usage;
    assert.equal(usage.completion_tokens, 12);
    assert.equal(usage.total_tokens, usage.prompt_tokens + 12);
    assert.ok(again.prompt_tokens_details.cached_tokens > 0);
  },

  async stream() {
    const plain = await client.chat.completions.create(asked);
    const options = { stream: true, stream_options: { include_usage: true } };
    const chunks = await collect(await client.chat.completions.create({ ...asked, ...options }));
    assert.equal(textOf(chunks), plain.choices[0].message.content);
    assert.equal(chunks[0].choices[0].delta.role, "assistant");
    const reasons = chunks.flatMap((chunk) => chunk.choices).map((one) => one.finish_reason);
    assert.deepEqual(reasons.filter(Boolean), ["length"]);
    assert.deepEqual(chunks.at(-1).choices, []);
    assert.equal(chunks.at(-1).usage.completion_tokens, 12);
    assert.equal(new Set(chunks.map((chunk) => chunk.id)).size, 1);
  },

  async "stream helper"() {
    const plain = await client.chat.completions.create(asked);
    const runner = client.chat.completions.stream(asked);
    assert.equal(await runner.finalContent(), plain.choices[0].message.content);
  },

  async completions() {
    const prompt = ["Once upon", "a time"];
    const settings = { model, prompt, temperature: 0, max_tokens: 5, ignore_eos: true };
    const plain = await client.completions.create({ ...settings, echo: true });
    assert.deepEqual(plain.choices.map((choice) => choice.index), [0, 1]);
    assert.ok(plain.choices[1].text.startsWith("a time"));
    const chunks = await collect(await client.completions.create({ ...settings, stream: true }));
    const parts = chunks.flatMap((chunk) => chunk.choices).filter((one) => one.index === 1);
    assert.equal(`a time${parts.map((one) => one.text).join("")}`, plain.choices[1].text);
  },

  async logprobs() {
    const settings = { ...asked, logprobs: true, top_logprobs: 2 };
    const { content } = (await client.chat.completions.create(settings)).choices[0].logprobs;
    assert.equal(content.length, 12);
    for (const token of content) {
      assert.equal(token.logprob, token.top_logprobs[0].logprob);
      assert.ok(token.top_logprobs[0].logprob >= token.top_logprobs[1].logprob);
      assert.ok(token.bytes.every((byte) => Number.isInteger(byte) && byte < 256));
    }
  },

  async "several choices"() {
    const settings = { ...asked, n: 3, temperature: 1, seed: 7 };
    const first = (await client.chat.completions.create(settings)).choices;
    const chunks = await collect(
      await client.chat.completions.create({ ...settings, stream: true }),
    );
    assert.deepEqual(first.map((choice) => choice.index), [0, 1, 2]);
    for (const choice of first)
      assert.equal(textOf(chunks, choice.index), choice.message.content);
    assert.ok(new Set(first.map((choice) => choice.message.content)).size > 1);
  },

  async "stop strings"() {
    const whole = (await client.chat.completions.create(asked)).choices[0].message.content;
    const stop = whole.slice(4, 6);
    const answer = await client.chat.completions.create({ ...asked, stop: [stop] });
    assert.equal(answer.choices[0].message.content, whole.slice(0, whole.indexOf(stop)));
    assert.equal(answer.choices[0].finish_reason, "stop");
  },

  async errors() {
    const { create } = client.chat.completions;
    const chat = (changes) => create.call(client.chat.completions, { ...asked, ...changes });
    const error = await refused(chat({ n: 0 }), OpenAI.BadRequestError, "n");
    assert.match(error.message, /n is 0; it must be from 1 to 128/);
    await refused(
      chat({ model: "nope", stream: true }),
      OpenAI.NotFoundError,
      "model",
      "model_not_found",
    );
    await refused(
      chat({ messages: [{ role: "user", content: "long ".repeat(9000) }] }),
      OpenAI.BadRequestError,
      "messages",
      "context_length_exceeded",
    );
  },

  async cancellation() {
    const aborted = await metric('request_success_total{finished_reason="abort"');
    const long = { ...asked, max_tokens: 400 };
    const controller = new AbortController();
    const { signal } = controller;
    const stream = await client.chat.completions.create({ ...long, stream: true }, { signal });
    for await (const chunk of stream) {
      assert.ok(chunk.id);
      controller.abort();
    }
    const plain = new AbortController();
    const answer = client.chat.completions.create({ ...long, n: 4 }, { signal: plain.signal });
    await until(async () => (await metric("num_requests_running")) === 4, "four run");
    plain.abort();
    await assert.rejects(answer, OpenAI.APIUserAbortError);
    await until(async () => (await metric("num_requests_running")) === 0, "nothing runs");
    const all = async () => await metric('request_success_total{finished_reason="abort"');
    await until(async () => (await all()) === aborted + 5, "five were ended early");
  },

  async models() {
    const ids = (await collect(await client.models.list())).map((one) => one.id);
    assert.deepEqual(ids, [model]);
    assert.ok(model.includes("/"));
    assert.equal((await client.models.retrieve(model)).id, model);
    await refused(client.models.retrieve("nope"), OpenAI.NotFoundError, "model", "model_not_found");
  },

  async "structured output"() {
    const schema = {
      type: "object",
      properties: { city: { enum: ["Paris", "Rome"] }, capital: { type: "boolean" } },
      required: ["city", "capital"],
      additionalProperties: false,
    };
    const response_format = { type: "json_schema", json_schema: { name: "city", schema } };
    const settings = { ...asked, ignore_eos: false, max_tokens: 100, response_format };
    const answer = await client.chat.completions.create(settings);
    assert.equal(answer.choices[0].finish_reason, "stop");
    const { city, capital } = JSON.parse(answer.choices[0].message.content);
    assert.ok(["Paris", "Rome"].includes(city) && typeof capital === "boolean");
    await refused(
      client.chat.completions.create({ ...asked, response_format: { type: "json_schema" } }),
      OpenAI.BadRequestError,
      "response_format.json_schema",
    );
  },

  async tools() {
    const parameters = {
      type: "object",
      properties: { unit: { enum: ["C", "F"] } },
      required: ["unit"],
      additionalProperties: false,
    };
    const tools = [{ type: "function", function: { name: "heat", parameters, strict: true } }];
    const settings = {
      ...asked,
      ignore_eos: false,
      max_tokens: 100,
      tools,
      tool_choice: "required",
      parallel_tool_calls: false,
    };
    const { message, finish_reason } = (await client.chat.completions.create(settings)).choices[0];
    assert.equal(finish_reason, "tool_calls");
    const [call] = message.tool_calls;
    assert.equal(call.function.name, "heat");
    assert.ok(["C", "F"].includes(JSON.parse(call.function.arguments).unit));
    const runner = client.chat.completions.stream(settings);
    const [streamed] = (await runner.finalMessage()).tool_calls;
    assert.equal(streamed.function.name, "heat");
    assert.equal(streamed.function.arguments, call.function.arguments);
    const result = { role: "tool", tool_call_id: call.id, content: "21" };
    const next = { ...settings, messages: [...messages, message, result], tool_choice: "none" };
    const after = await client.chat.completions.create(next);
    assert.equal(after.choices[0].message.tool_calls, undefined);
    await refused(
      client.chat.completions.create({ ...settings, messages: [...messages, result] }),
      OpenAI.BadRequestError,
      "messages[1].tool_call_id",
    );
  },

  async responses() {
    const settings = { model, input: "What is the capital of France?", temperature: 0 };
    const answer = await client.responses.create({ ...settings, max_output_tokens: 8 });
    assert.ok(["completed", "incomplete"].includes(answer.status));
    assert.ok(answer.output_text.length > 0);
    const events = await collect(
      await client.responses.create({ ...settings, max_output_tokens: 8, stream: true }),
    );
    const deltas = events.filter((event) => event.type === "response.output_text.delta");
    assert.equal(deltas.map((event) => event.delta).join(""), answer.output_text);
    assert.equal(events[0].type, "response.created");
    assert.equal(events.at(-1).type, `response.${answer.status}`);
  },
};

for (const [name, run] of Object.entries(cases)) {
  let problem = null;
  try {
    await run();
  } catch (error) {
    problem = `${error.stack ?? error}`;
  }
  console.log(JSON.stringify({ case: name, problem }));
}

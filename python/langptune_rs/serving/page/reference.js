// The server's OpenAPI document, to be read: every address, what it takes, and what it answers.

import { read } from "./api.js";
import { $, make, number, put, say } from "./dom.js";

let schemas = {};

begin();

async function begin() {
  try {
    const { paths, components, info } = await read("openapi.json");
    schemas = components.schemas;
    put($("served"), `version ${info.version}`);
    const operations = Object.entries(paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => ({ method: method.toUpperCase(), path, ...operation })),
    );
    const tags = [...new Set(operations.flatMap(({ tags }) => tags))];
    $("operations").replaceChildren(...tags.map((tag) => sectionOf(tag, operations.filter(({ tags }) => tags.includes(tag)))));
  } catch (error) {
    say($("reference-error"), error.message);
  }
  document.documentElement.dataset.ready = "";
}

function sectionOf(tag, operations) {
  const id = `tag-${tag}`;
  const heading = make("h2", { id, textContent: tag.charAt(0).toUpperCase() + tag.slice(1) });
  return make("section", { "aria-labelledby": id }, heading, ...operations.map(detailsOf));
}

function detailsOf({ method, path, description = "", parameters = [], requestBody, responses }) {
  const summary = make(
    "summary",
    {},
    make("code", { className: "method", textContent: method }),
    " ",
    make("code", { textContent: path.replaceAll(":path}", "}") }),
    make("span", { className: "hint", textContent: description }),
  );
  const [answered, refused] = [200, 400].map((least) =>
    Object.entries(responses).filter(([status]) => status >= least && status < least + 200),
  );
  const parts = [
    ...titled("Parameters", parameters.length ? listOf(parameters.map((one) => [one.name, one.schema, one.required])) : null),
    ...titled("Body", schemaOf(requestBody)),
    ...titled("Answer", schemaOf(answered[0]?.[1])),
    ...titled("Refused with", make("p", { className: "hint", textContent: refused.map(([status]) => status).join(", ") })),
  ];
  return make("details", { className: "fold" }, summary, ...parts);
}

const titled = (title, content) => (content ? [make("h3", { textContent: title }), content] : []);

/** What a body or an answer holds, as a list; null where it is no JSON. */
function schemaOf(message) {
  const schema = message?.content?.["application/json"]?.schema;
  return schema ? listOf(keysOf(resolved(schema))) : null;
}

const resolved = (schema) => (schema.$ref ? schemas[schema.$ref.split("/").at(-1)] : schema);

/** The keys of an object as `[name, schema, is required]`. */
const keysOf = ({ properties = {}, required = [] }) =>
  Object.entries(properties).map(([name, schema]) => [name, schema, required.includes(name)]);

function listOf(keys) {
  return make("ul", { className: "keys-of" }, ...keys.map(([name, schema, isRequired]) => entryOf(name, schema, isRequired)));
}

function entryOf(name, schema, isRequired) {
  const usual = !isRequired && schema.default !== undefined && schema.default !== null ? `, ${JSON.stringify(schema.default)} by default` : "";
  const words = `${wordsOf(schema)}${isRequired ? "" : ", optional"}${usual}`;
  const entry = make("li", {}, make("code", { textContent: name }), " ", make("span", { className: "hint", textContent: words }));
  if (schema.description) entry.append(make("p", {}, ...told(schema.description)));
  for (const inner of objectsIn(schema)) entry.append(listOf(keysOf(inner)));
  return entry;
}

/** A description, whose names stand between backticks. */
const told = (text) => text.split("`").map((part, place) => (place % 2 ? make("code", { textContent: part }) : part));

/** The objects that a value may be or hold. */
function objectsIn(schema) {
  const whole = resolved(schema);
  if (whole.properties) return [whole];
  return [...(whole.anyOf ?? whole.oneOf ?? []), ...(whole.items ? [whole.items] : [])].flatMap(objectsIn);
}

function wordsOf(schema) {
  const whole = resolved(schema);
  const either = whole.anyOf ?? whole.oneOf;
  if (either) return [...new Set(either.map(wordsOf))].join(" or ");
  if (whole.const !== undefined) return JSON.stringify(whole.const);
  if (whole.enum) return whole.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (whole.type === "array") return `list of ${wordsOf(whole.items)}${rangeOf(whole.minItems, whole.maxItems, "entries")}`;
  if (whole.type === "string") return `string${rangeOf(whole.minLength, whole.maxLength, "characters")}`;
  return (whole.type ?? "any value") + rangeOf(whole.minimum, whole.maximum, "");
}

function rangeOf(least, most, unit) {
  if (least === undefined && most === undefined) return "";
  const range = most === undefined ? `from ${number(least)}` : least === undefined ? `at most ${number(most)}` : `${number(least)} to ${number(most)}`;
  return ` (${[range, unit].filter(Boolean).join(" ")})`;
}

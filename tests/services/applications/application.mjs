// A receiver of callbacks as Express's own documentation has it: the JSON parser, one route.
// Arguments: where the packages are, which of them, the port.
import { createRequire } from "node:module";

const [directory, name, port] = process.argv.slice(2);
const express = createRequire(`${directory}/`)(name);
const application = express();
let runs = 0;
application.get("/runs", (_, response) => response.json({ runs }));
application.use(express.json());
application.post("/callbacks/suno", (request, response) => {
  runs += 1;
  response.json({
    id: request.body?.data?.task_id ?? null,
    url: request.body?.data?.video_url ?? null,
    verified: request.get("x-callback-guard-id") ?? null,
  });
});
application.listen(Number(port), "127.0.0.1");

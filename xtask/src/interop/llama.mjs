// Continues a prompt greedily in llama.cpp, by way of node-llama-cpp. Run by `cargo xtask interop --llama`.
// Arguments: the prompt, the number of tokens, then GGUF files. Prints one JSON object a line.

import {getLlama} from "node-llama-cpp";

const [prompt, count, ...files] = process.argv.slice(2);
const llama = await getLlama({gpu: false, build: "never", logLevel: "error"});
for (const file of files) {
    const model = await llama.loadModel({modelPath: file});
    const context = await model.createContext({contextSize: 256, flashAttention: false});
    const start = model.tokenize(prompt);
    if (model.tokens.shouldPrependBosToken)
        start.unshift(model.tokens.bos);
    const tokens = [];
    for await (const token of context.getSequence().evaluate(start, {temperature: 0})) {
        if (model.isEogToken(token))
            break;
        tokens.push(token);
        if (tokens.length >= Number(count))
            break;
    }
    console.log(JSON.stringify({file, text: prompt + model.detokenize(tokens)}));
    await context.dispose();
    await model.dispose();
}
process.exit(0);
